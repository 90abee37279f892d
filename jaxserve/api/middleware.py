"""What surrounds every request, as plain ASGI so that streams pass untouched: ids, log, metrics, failures, keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxserve.api.admission import Admission
from jaxserve.api.auth import OTHER_KEY_HEADERS, ApiKeys, presented_key
from jaxserve.api.errors import ApiError
from jaxserve.api.metrics import Metrics
from jaxserve.api.request_log import PROBES, Record, new_record, record_of
from jaxserve.api.traces import Traces

_log = logging.getLogger("jaxserve.api")


class Observe:
    """Outermost: gives every request its id, its record, and an answer whatever happens inside.

    Args:
        app: what is inside.
        metrics: count the requests.
        admission: learns how long they take.
        traces: get their spans, but for those of probes.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics | None = None,
        admission: Admission | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._admission = admission
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = new_record(scope)
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                record.status = record.status or message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.request_id
            await send(message)

        if self._metrics is not None:
            self._metrics.in_flight.inc()
        try:
            if _is_framed_twice(scope):
                await _FRAMED_TWICE.response()(scope, receive, observed)
            else:
                await self._app(scope, receive, observed)
        except Exception:  # noqa: BLE001 - the last line of defence: every request gets an answer
            _log.exception("request %s failed", record.request_id)
            record.error = "internal_error"
            if not started:
                await ApiError(500, "internal server error").response()(scope, receive, observed)
            record.status = 500
        finally:
            self._finish(record)

    def _finish(self, record: Record) -> None:
        seconds = time.monotonic() - record.received
        if self._metrics is not None:
            self._metrics.in_flight.dec()
            self._metrics.observe(record, seconds)
        if self._admission is not None:
            self._admission.observe(record, seconds)
        if self._traces is not None and record.endpoint not in PROBES:
            self._traces.write(record)
        record.log()


_FRAMED_TWICE = ApiError(
    400,
    "content-length: can't be given beside transfer-encoding: where the request ends would be anybody's guess",
    loc=("header", "content-length"),
    headers={"Connection": "close"},
)
"""What request smuggling is made of: a proxy that believes one header in front of a server that believes the other."""


def _is_framed_twice(scope: Scope) -> bool:
    return {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}


class RequireKey:
    """Refuses requests that carry no accepted key, but for those of the open paths."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, open_paths: Iterable[str]) -> None:
        self._app = app
        self._keys = keys
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection (ASGI)."""
        if scope["type"] == "http" and self._guards(scope["path"]):
            headers = Headers(scope=scope)
            if not self._keys.accepts(presented_key(headers)):
                missing = all(name not in headers for name in ("authorization", *OTHER_KEY_HEADERS))
                message = "missing API key" if missing else "this API key is not accepted"
                error = ApiError(
                    401,
                    f"authorization: {message}; send the header Authorization: Bearer <API key>",
                    loc=("header", "authorization"),
                    headers={"WWW-Authenticate": "Bearer"},
                )
                record_of(scope).error = "invalid_api_key"
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _guards(self, path: str) -> bool:
        return self._keys.required and path not in self._open
