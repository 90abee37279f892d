"""One HTTP connection: uvicorn's, with an end to everything that a silent or slow client could hold for ever."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from jaxserve.api.errors import ApiError
from jaxserve.api.request_log import new_id
from jaxserve.api.settings import spread
from jaxserve.api.sse import encode_json
from jaxserve.options import Limits

_LINGER = 5.0
"""Seconds for which the rest of a body is still received (and dropped) after its answer: closed at once, the
connection could take the answer with it before the client has read it."""

_SHUTTING_DOWN = ApiError(503, "the server is shutting down", code="shutting_down", headers={"Retry-After": "5"})
_CROWDED = ApiError(503, "too many connections are open", code="too_many_connections", headers={"Retry-After": "5"})
_SLOW_HEAD = ApiError(408, "the head of the request had not come when its time was over")

Writer = Callable[[bytes], bool]
"""Sends a part of a streamed answer to a GET or POST; False where it must go through ASGI's `send`, which may wait."""
_WRITER = "jaxserve.writer"
_SEND_BUFFER = 128 << 10
"""Bytes that the system holds for a client that does not read. What it would choose, megabytes, is as much generated
for nobody."""

Phase = Literal["head", "rest"]
"""What a connection may wait for, for a limited time: a request's head, or the rest of a body that was answered."""


def writer_of(scope: Scope) -> Writer:
    """How the answer of this request can be sent at once, if the server has a way."""
    writer: Writer = scope.get("extensions", {}).get(_WRITER, lambda body: False)
    return writer


def guarded(limits: Limits) -> Callable[..., asyncio.Protocol]:
    """The protocol for uvicorn's `http` setting."""
    return partial(GuardedProtocol, limits=limits)


class GuardedProtocol(H11Protocol):
    """Bodies and answers of requests have their limits elsewhere; here are those of the connection.

    A head must come within its time, however it drips; answers must be read; where connections are too many, the one
    that has been between requests for longest goes; at shutdown, who is still sending a body gets an answer.
    """

    def __init__(self, *arguments: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._limits = limits
        self._waiting: tuple[Phase, asyncio.TimerHandle] | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._quiet_since = time.monotonic()

    @property
    def between_requests(self) -> bool:
        """Whether no request is being read or answered; a part of a head may have come."""
        return self.cycle is None or (self.cycle.response_complete and self.conn.our_state is h11.IDLE)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if len(self.connections) > self._limits.max_connections and not self._make_room():
            self.refuse(_CROWDED)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        super().data_received(data)
        self._watch()

    def handle_events(self) -> None:
        """What has come is read; the request that it begins learns how to send the parts of its answer."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            extensions: dict[str, Any] = cast(Any, self.cycle.scope).setdefault("extensions", {})
            extensions[_WRITER] = partial(self._write, self.cycle)

    def _write(self, cycle: Any, body: bytes) -> bool:
        """See `Writer`: one part of a body of unknown length, framed as HTTP/1.1 has it (RFC 9112, 7.1).

        The way through ASGI and h11 takes five times as long.
        """
        if self.flow.write_paused or not cycle.response_started or cycle.scope["http_version"] != "1.1":
            return False
        if cycle.disconnected or not body:  # an empty chunk would end the body
            return True
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def on_response_complete(self) -> None:
        """An answer is complete; maybe its request is not."""
        super().on_response_complete()
        self._quiet_since = time.monotonic()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Who is still sending a body is told; everything else is uvicorn's."""
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_started:
            self.refuse(_SHUTTING_DOWN)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """The client reads slower than is written."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self.refuse(ApiError(400, "the request is not valid HTTP"))

    def refuse(self, error: ApiError) -> None:
        """Answers in the place of the application, if nothing has been answered yet, and closes."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = encode_json(error.body())
            headers = {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "connection": "close",
                "x-request-id": new_id(),
                **error.headers,
            }
            events = [
                h11.Response(status_code=error.status, headers=list(headers.items())),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ]
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def _make_room(self) -> bool:
        """Closes the connection that has been between requests for longest; False when all are at work."""
        quiet = [
            other
            for other in self.connections
            if isinstance(other, GuardedProtocol) and other is not self and other.between_requests
        ]
        if quiet:
            min(quiet, key=lambda other: other._quiet_since).transport.abort()
        return bool(quiet)

    def _watch(self) -> None:
        """Has a timer run for what the connection waits for now; one that runs for it already runs on."""
        if self.transport.is_closing():
            self._stop_waiting()
        elif self.between_requests:
            # While nothing of the next request has come, uvicorn's timer for idle connections runs.
            if self.timeout_keep_alive_task is None or self.conn.trailing_data[0]:
                self._wait_for("head", spread(self._limits.header_timeout))
        elif self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY:
            self._wait_for("rest", _LINGER)
        else:
            self._stop_waiting()

    def _wait_for(self, phase: Phase, seconds: float) -> None:
        if self._waiting is None or self._waiting[0] != phase:
            self._stop_waiting()
            self._waiting = phase, self.loop.call_later(seconds, self._give_up, phase)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting[1].cancel()
            self._waiting = None

    def _give_up(self, phase: Phase) -> None:
        begun = phase == "head" and self.conn.trailing_data[0]
        if begun and not self.transport.is_closing():
            self.refuse(_SLOW_HEAD)
        else:
            self.transport.close()
