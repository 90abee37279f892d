"""How long a request may take: what the server allows, and less where its client says so."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers

from jaxserve.api.errors import ApiError
from jaxserve.api.settings import Settings
from jaxserve.errors import RequestTimeout

HEADER = "x-request-timeout"


@dataclass(frozen=True)
class Deadline:
    """When a request must have ended."""

    at: float
    """`time.monotonic()`; infinity = whenever."""
    seconds: float
    """What was allowed."""

    @property
    def left(self) -> float | None:
        """Seconds until then, negative once it has passed; None = whenever."""
        return None if self.at == math.inf else self.at - time.monotonic()

    @asynccontextmanager
    async def bounds(self) -> AsyncIterator[None]:
        """Ends what is awaited inside when the time is over.

        Raises:
            RequestTimeout: it was.
        """
        try:
            async with asyncio.timeout(self.left) as limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise self.error() from None
            raise

    def error(self) -> RequestTimeout:
        """What the client gets when it has passed."""
        return RequestTimeout(f"the request did not end within {self.seconds:g} seconds")


NO_DEADLINE = Deadline(math.inf, math.inf)


def deadline_of(headers: Headers, settings: Settings, received: float) -> Deadline:
    """The deadline of a request that came in at `received`, in seconds of `time.monotonic()`.

    Raises:
        ApiError: the header holds no number of seconds.
    """
    allowed = math.inf if settings.limits.request_timeout is None else settings.limits.request_timeout
    seconds = min(allowed, _asked(headers))
    return Deadline(received + seconds, seconds)


def _asked(headers: Headers) -> float:
    text = headers.get(HEADER)
    if text is None:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ApiError(
            422, f"{HEADER}: a number of seconds above 0 is needed", loc=("header", HEADER), code="invalid_value"
        )
    return seconds
