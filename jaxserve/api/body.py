"""Bytes of a request to a checked request object."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from jaxserve.api.errors import ApiError, Location, dotted, locate, validation_error

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


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`: UTF-8, finite numbers, no half surrogate pairs.

    Raises:
        ApiError: 422 that says what is wrong and where.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _malformed(f"not valid UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise _malformed("a string holds half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _malformed(reason) from None
    if not isinstance(value, dict):
        raise ApiError(422, "body: must be a JSON object", loc=("body",), code="invalid_json")
    return value


def _malformed(reason: str) -> ApiError:
    return ApiError(422, f"body: malformed JSON: {reason}", loc=("body",), code="invalid_json")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


@dataclass(frozen=True)
class Parsed(Generic[R]):
    """A request that matches its schema."""

    request: R
    ignored: tuple[str, ...] = ()
    """Unknown fields that lenient mode left out."""


def validate(schema: type[R], body: dict[str, Any], *, lenient: bool) -> Parsed[R]:
    """Checks `body` against a request schema.

    Raises:
        ApiError: 422 with every finding.
    """
    ignored: list[str] = []
    while True:
        try:
            return Parsed(schema.model_validate(body), tuple(dict.fromkeys(ignored)))
        except ValidationError as error:
            unknown = _unknown_fields(error, body) if lenient else []
            if not unknown:
                raise validation_error(error, body) from None
            for loc in unknown:
                _remove(body, loc)
            ignored += [dotted(loc) for loc in unknown]


def _unknown_fields(error: ValidationError, body: Any) -> list[Location]:
    findings = error.errors(include_url=False, include_context=False, include_input=False)
    unknown = [locate(finding, body) for finding in findings if finding["type"] == "extra_forbidden"]
    return list(dict.fromkeys(unknown))


def _remove(body: Any, loc: Location) -> None:
    for part in loc[:-1]:
        body = body[part]
    del body[loc[-1]]
