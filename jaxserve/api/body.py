"""Bytes of a request to a checked request object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from jaxserve.api.bounds import check_lengths
from jaxserve.api.errors import ApiError, Location, dotted
from jaxserve.api.findings import MAX_FINDINGS, findings_of, locate, validation_error
from jaxserve.api.schema.base import MAX_KEYS, MAX_WRONG_OBJECTS, OutOfPatience, Patience
from jaxserve.api.settings import Limits

R = TypeVar("R", bound=BaseModel)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, never holding more than `limit` bytes.

    Raises:
        ApiError: 413 when it is larger, 415 when it says it isn't JSON.
        ClientDisconnect: the client went away.
    """
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media and media != "application/json" and not media.endswith("+json"):
        raise ApiError(415, "Content-Type must be application/json", loc=("header", "content-type"))
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"body: larger than this server's limit of {limit} bytes", loc=("body",))


@dataclass(frozen=True)
class Parsed(Generic[R]):
    """A request that matches its schema."""

    request: R
    ignored: tuple[str, ...] = ()
    """Unknown fields that lenient mode left out."""


def validate(schema: type[R], body: dict[str, Any], *, lenient: bool, limits: Limits | None = None) -> Parsed[R]:
    """Checks `body` against a request schema. A null for an optional field means that it isn't given.

    Raises:
        ApiError: 422 with the findings, or because a list or dictionary is longer than any request needs.
    """
    check_lengths(body, limits or Limits())
    optional = {name for name, info in schema.model_fields.items() if not info.is_required()}
    body = {name: value for name, value in body.items() if not (value is None and name in optional)}
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
                raise validation_error(error, body) from None
            for loc in unknown:
                _remove(body, loc)
            ignored += [dotted(loc) for loc in unknown]


def _first_findings(schema: type[BaseModel], body: dict[str, Any]) -> ApiError:
    """What is wrong with the first items of each list, of a request in which too much is wrong."""
    try:
        schema.model_validate(_beginning(body))
    except ValidationError as error:
        return validation_error(error, body, at_least=MAX_WRONG_OBJECTS)
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
