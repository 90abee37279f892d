"""How much may be under way before the engine: requests and bytes being read and prepared, and what others are told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jaxserve.api.ports import EngineLike
from jaxserve.api.request_log import Record
from jaxserve.api.settings import Settings
from jaxserve.errors import Overloaded

_MOST_SECONDS = 60
"""The longest wait that is advised."""
_WEIGHT = 0.1
"""Of the newest request in the mean duration."""


@dataclass
class Place:
    """A request's place among those that are read and prepared."""

    admission: Admission
    held: int = 0

    def hold(self, size: int) -> None:
        """Counts bytes of the body.

        Raises:
            Overloaded: all bodies together are larger than the server holds.
        """
        self.admission.hold(size)
        self.held += size


class Admission:
    """The queue in front of the engine's. Lives on the event loop.

    Reading and preparing a request costs memory and the time of few threads, so as many may be at it as the engine
    would take: those that find a slot, and `max_waiting` more.
    """

    def __init__(self, engine: EngineLike, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._open = 0
        self._held = 0
        self._mean_seconds = 0.0

    @contextmanager
    def enter(self) -> Iterator[Place]:
        """A place for the time that a request is read and prepared.

        Raises:
            Overloaded: too many are at it.
        """
        settings = self._settings
        if self._open >= settings.max_waiting + settings.slots:
            raise Overloaded(f"{settings.max_waiting} requests are waiting already; try again later")
        place = Place(self)
        self._open += 1
        try:
            yield place
        finally:
            self._open -= 1
            self._held -= place.held

    def hold(self, size: int) -> None:
        """See `Place.hold`."""
        most = self._settings.limits.max_held_bytes
        if self._held + size > most:
            raise Overloaded(
                f"the bodies of waiting requests fill the {most} bytes there are for them; try again later"
            )
        self._held += size

    def observe(self, record: Record, seconds: float) -> None:
        """Learns from a request that has ended how long one takes."""
        if record.ledger is not None:
            self._mean_seconds += (seconds - self._mean_seconds) * (_WEIGHT if self._mean_seconds else 1)

    @property
    def retry_after(self) -> int:
        """Seconds after which the queue will be gone, if requests go on taking as long as they did."""
        waiting = self._open + int(getattr(self._engine.stats(), "waiting", 0))
        seconds = math.ceil(waiting * self._mean_seconds / self._settings.slots)
        return max(self._settings.retry_after_seconds, min(seconds, _MOST_SECONDS))
