"""Bytes of a request to a checked request object."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request

from jaxserve.api.bounds import check_lengths
from jaxserve.api.errors import ApiError, Location, dotted
from jaxserve.api.findings import MAX_FINDINGS, findings_of, locate, validation_error
from jaxserve.api.schema.base import MAX_KEYS, MAX_WRONG_OBJECTS, OutOfPatience, Patience
from jaxserve.api.settings import spread
from jaxserve.options import Limits

R = TypeVar("R", bound=BaseModel)


_SLOWEST = 64 * 1024
"""Bytes of a body for which its time is prolonged by a second."""


@dataclass(frozen=True)
class Body:
    """A request's body as it came."""

    data: bytes
    compressed: bool = False

    def decoded(self, limit: int) -> bytes:
        """The body itself, never making more than `limit` bytes.

        Raises:
            ApiError: 413 when it is larger, 400 when it is no gzip.
        """
        if not self.compressed:
            return self.data
        reader = zlib.decompressobj(wbits=31)
        try:
            data = reader.decompress(self.data, limit)
            if not reader.eof and reader.decompress(reader.unconsumed_tail, 1):
                raise _too_large(limit)
        except zlib.error:
            raise _not_gzip("is not gzip, as Content-Encoding says") from None
        if not reader.eof or reader.unused_data:
            raise _not_gzip("does not end where its gzip data ends")
        return data


async def read_body(request: Request, limits: Limits, hold: Callable[[int], None]) -> Body:
    """The whole body, never holding more than the limit.

    Args:
        request: whose body it is.
        limits: its size and its time.
        hold: told of every part's size.

    Raises:
        ApiError: 408 when it takes too long, 413 when it is larger, 415 when it says it is neither JSON nor gzip of it.
        ClientDisconnect: the client went away.
    """
    compressed = _check_type(request.headers)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.max_body_bytes:
        raise _too_large(limits.max_body_bytes)
    end = asyncio.get_running_loop().time() + spread(limits.body_timeout)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(end) as time:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise _too_large(limits.max_body_bytes)
                hold(len(chunk))
                chunks.append(chunk)
                time.reschedule(end + size / _SLOWEST)
    except TimeoutError:
        raise ApiError(
            408, f"body: {size} bytes had come when its time was over", ("body",), headers={"Connection": "close"}
        ) from None
    return Body(b"".join(chunks), compressed)


def _check_type(headers: Headers) -> bool:
    """Whether the body is compressed.

    Raises:
        ApiError: 415, it is something that isn't read here.
    """
    media = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media and media != "application/json" and not media.endswith("+json"):
        raise ApiError(415, "Content-Type must be application/json", loc=("header", "content-type"))
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise ApiError(
            415,
            "Content-Encoding must be gzip, or none",
            loc=("header", "content-encoding"),
            headers={"Accept-Encoding": "gzip"},
        )
    return encoding == "gzip"


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"body: larger than this server's limit of {limit} bytes", loc=("body",))


def _not_gzip(reason: str) -> ApiError:
    return ApiError(400, f"body: {reason}", loc=("body",), code="invalid_encoding")


@dataclass(frozen=True)
class Parsed(Generic[R]):
    """A request that matches its schema."""

    request: R
    ignored: tuple[str, ...] = ()
    """Unknown fields that lenient mode left out."""


def validate(schema: type[R], body: dict[str, Any], *, lenient: bool, limits: Limits | None = None) -> Parsed[R]:
    """Checks `body` against a request schema.

    Raises:
        ApiError: 422 with the findings, or because a list or dictionary is longer than any request needs.
    """
    check_lengths(body, limits or Limits())
    ignored: list[str] = []
    while True:
        try:
            request = schema.model_validate(body, context=Patience() if not lenient else None)
            return Parsed(request, tuple(dict.fromkeys(ignored)))
        except OutOfPatience:
            raise _first_findings(schema, body) from None
        except ValidationError as error:
            unknown = _unknown_fields(error, body) if lenient else []
            if not unknown:
                raise validation_error(error, schema, body) from None
            for loc in unknown:
                _remove(body, loc)
            ignored += [dotted(loc) for loc in unknown]


def _first_findings(schema: type[BaseModel], body: dict[str, Any]) -> ApiError:
    """What is wrong with the first items of each list, of a request in which too much is wrong."""
    try:
        schema.model_validate(_beginning(body))
    except ValidationError as error:
        return validation_error(error, schema, body, at_least=MAX_WRONG_OBJECTS)
    return ApiError(422, f"body: more than {MAX_WRONG_OBJECTS} objects in it are not what they should be", ("body",))


def _beginning(value: Any, depth: int = 4) -> Any:
    """The same JSON with the first items of its lists only."""
    if isinstance(value, list):
        return [_beginning(item, depth) for item in value[:MAX_FINDINGS]]
    if isinstance(value, dict) and depth and len(value) <= MAX_KEYS:
        return {key: _beginning(part, depth - 1) for key, part in value.items()}
    return value


def _unknown_fields(error: ValidationError, body: Any) -> list[Location]:
    unknown = [locate(finding, body) for finding in findings_of(error) if finding["type"] == "extra_forbidden"]
    return list(dict.fromkeys(unknown))


def _remove(body: Any, loc: Location) -> None:
    for part in loc[:-1]:
        body = body[part]
    del body[loc[-1]]
