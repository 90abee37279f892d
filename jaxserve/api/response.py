"""From a job to its answer on the wire: streamed or folded, and aborted as soon as nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jaxserve.api import sse
from jaxserve.api.connection import writer_of
from jaxserve.api.errors import as_api_error
from jaxserve.api.lift import Chunk, Lifter
from jaxserve.api.lower import Job
from jaxserve.api.request_log import CLIENT_GONE, record_of
from jaxserve.api.settings import Settings
from jaxserve.api.submission import Generation
from jaxserve.api.usage import Ledger, perf_headers
from jaxserve.api.wire import OwnWire, Wire

_log = logging.getLogger("jaxserve.api")
T = TypeVar("T")
_MANY_CHUNKS = 1000
"""Chunks whose folding would hold up the event loop: some 10 ms."""


class GenerationResponse(Response):
    """Submits a job and sends what comes of it.

    Errors before the first byte are raised (the exception handlers answer them); later ones end the stream as an event.
    """

    def __init__(
        self,
        job: Job,
        generation: Generation,
        lifter: Lifter,
        ledger: Ledger,
        settings: Settings,
        headers: Mapping[str, str],
        wire: Wire | None = None,
    ) -> None:
        super().__init__(headers=dict(headers))
        self._extra = dict(headers)
        self._job = job
        self._generation = generation
        self._lifter = lifter
        self._ledger = ledger
        self._settings = settings
        self._wire = wire or OwnWire(job.endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer (ASGI)."""
        record = record_of(scope)
        try:
            self._generation.submit()
            record.ledger = self._ledger
            await until_disconnect(receive, self._stream(scope, send) if self._job.stream else self._whole(send))
        except ClientGone:
            record.status = CLIENT_GONE
        finally:
            self._generation.abort()

    async def _chunks(self) -> AsyncIterator[list[Chunk]]:
        """Chunks, in the bursts they come in; the last one is sealed with usage. None at all after a nudge."""
        async for deltas in self._generation:
            chunks = [chunk for delta in deltas for chunk in self._lifter.lift(delta)]
            if self._lifter.finished and chunks:
                chunks[-1:] = self._lifter.seal(chunks[-1], self._ledger.perf_metrics(self._settings))
            if chunks or not deltas:
                yield chunks

    async def _whole(self, send: Send) -> None:
        chunks = [chunk async for burst in self._chunks() for chunk in burst]
        if len(chunks) > _MANY_CHUNKS:
            body = await asyncio.to_thread(self._wire.whole, chunks)
        else:
            body = self._wire.whole(chunks)
        headers = perf_headers(self._ledger.perf_metrics(self._settings))
        await _start(
            send, {"content-type": "application/json", "content-length": str(len(body)), **headers, **self._extra}
        )
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, scope: Scope, send: Send) -> None:
        write, started = writer_of(scope), False
        try:
            with Pauses(self._settings.keepalive_seconds, self._generation.nudge) as pauses:
                async for chunks in self._chunks():
                    if not (chunks or pauses.over):
                        continue
                    if not started:
                        await _start(send, {**sse.HEADERS, **self._extra})
                        started = True
                    body = self._wire.events(chunks) if chunks else sse.KEEPALIVE
                    if not write(body):
                        with self._generation.stalled():
                            await send({"type": "http.response.body", "body": body, "more_body": True})
                    pauses.end()
            tail = self._wire.end()
        except Exception as error:
            if not started:
                raise
            failure = as_api_error(error)
            record_of(scope).error = failure.body()["error"]["code"]
            if failure.status == 500:
                _log.exception("request %s failed while streaming", record_of(scope).request_id)
            tail = self._wire.failure(failure.body())
        await send({"type": "http.response.body", "body": tail, "more_body": False})


class Pauses:
    """Watches a stream for silence: calls `nudge` after every `interval` seconds of it. A context."""

    def __init__(self, interval: float, nudge: Callable[[], None]) -> None:
        self._interval = interval
        self._nudge = nudge
        self._loop = asyncio.get_running_loop()
        self.end()

    @property
    def over(self) -> bool:
        """Whether it has been silent for so long."""
        return self._loop.time() - self._since >= self._interval

    def end(self) -> None:
        """Something has been said."""
        self._since = self._loop.time()

    def _check(self) -> None:
        if self.over:
            self._nudge()
        self._wait()

    def _wait(self) -> None:
        """One timer for the whole stream, however much is said: it finds out how long to wait on."""
        spent = self._loop.time() - self._since
        self._timer = self._loop.call_later(max(self._interval - spent, 0) or self._interval, self._check)

    def __enter__(self) -> Pauses:
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


async def _start(send: Send, headers: Mapping[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


async def until_disconnect(receive: Receive, work: Awaitable[T]) -> T:
    """Runs `work`, but cancels it when the client goes away.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
