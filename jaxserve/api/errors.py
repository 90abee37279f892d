"""Every failure in one shape, and the one place that maps exceptions to HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from jaxserve.api.schema.responses import ErrorResponse, ValidationDetail
from jaxserve.errors import (
    ContextLengthExceeded,
    EngineStopped,
    InvalidRequest,
    Overloaded,
    RequestFailed,
    RequestTimeout,
    TemplateError,
    UnknownModel,
)

Location = tuple[str | int, ...]

_KINDS = {
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    422: ("invalid_request_error", "invalid_value"),
    429: ("rate_limit_error", "overloaded"),
    503: ("service_unavailable_error", "engine_unavailable"),
}
_SERVER_ERROR = ("server_error", "internal_error")

_MAX_MESSAGE = 2000
_MAX_NAME = 100
"""Characters of a message and of a name in it that are sent back: both may quote what the client sent."""


@dataclass
class ApiError(Exception):
    """A failure with everything its HTTP answer needs."""

    status: int
    message: str
    loc: Location | None = None
    """What is at fault: ('body', 'top_k'), ('header', 'authorization'), ...; None when no part of the request is."""
    code: str | None = None
    detail: list[ValidationDetail] | None = None
    """All findings, where validation found several."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> ErrorResponse:
        """The answer's body: `error`, and `detail` where a part of the request is at fault."""
        kind, code = _KINDS.get(self.status, _SERVER_ERROR)
        message = shortened(self.message, _MAX_MESSAGE)
        response = ErrorResponse(
            error={
                "message": message,
                "type": kind,
                "param": None if self.loc is None else dotted(self.loc[1:]) or None,
                "code": self.code or code,
            }
        )
        detail = self.detail
        if detail is None and self.loc is not None:
            detail = [{"loc": short_path(self.loc), "msg": message, "type": self.code or code}]
        if detail is not None:
            response["detail"] = detail
        return response

    def response(self) -> JSONResponse:
        """The HTTP answer."""
        return JSONResponse(self.body(), self.status, headers=dict(self.headers))


def dotted(loc: Sequence[str | int]) -> str:
    """`messages.0.content` for ('messages', 0, 'content')."""
    return ".".join(str(part) for part in short_path(loc))


def short_path(loc: Sequence[str | int]) -> list[str | int]:
    """The path with names of a bounded length: unknown fields are named as the client spelled them."""
    return [shortened(part, _MAX_NAME) if isinstance(part, str) else part for part in loc]


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def as_api_error(error: Exception, retry_after: int = 1) -> ApiError:
    """The HTTP meaning of an exception; anything unforeseen is a 500 that tells nothing about the inside."""
    retry = {"Retry-After": str(retry_after)}
    match error:
        case ApiError():
            return error
        case UnknownModel():
            return _about_field(404, error, "model_not_found")
        case ContextLengthExceeded():
            return _about_field(400, error, "context_length_exceeded")
        case TemplateError():
            return _about_field(400, error, "template_error")
        case InvalidRequest():
            return _about_field(422, error, "invalid_value")
        case RequestTimeout():
            return ApiError(408, str(error))
        case RequestFailed():
            return ApiError(400, str(error), code="request_failed")
        case Overloaded():
            return ApiError(429, str(error) or "too many requests are waiting; try again later", headers=retry)
        case EngineStopped():
            return ApiError(503, str(error) or "the engine has stopped", headers=retry)
        case HTTPException():
            return ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
        case _:
            return ApiError(500, "internal server error")


def _about_field(status: int, error: InvalidRequest, code: str) -> ApiError:
    parts: list[str | int] = [
        int(part) if part.isascii() and part.isdigit() else part for part in error.field.split(".")
    ]
    names_field = str(parts[0]) in error.message
    message = error.message if names_field else f"{error.field}: {error.message}"
    return ApiError(status, message, loc=("body", *parts), code=code)
