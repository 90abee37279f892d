"""The engine's requests of one call while they run: deltas come out, and leaving early ends what still runs."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from jaxserve.api.ports import EngineLike
from jaxserve.api.submission import DeltaQueue
from jaxserve.engine.requests import Delta, Request, Sink
from jaxserve.errors import EngineStopped, RequestFailed


class Running:
    """Requests that are submitted together.

    Both iterators raise the error of the first request that fails, and abort the others: also when the loop is left, by
    a KeyboardInterrupt or by cancellation.
    """

    def __init__(self, engine: EngineLike, requests: Sequence[Request], among: set[Running]) -> None:
        self._engine = engine
        self._requests = requests
        self._among = among
        """Holds this while it runs."""
        self._open: dict[str, int] = {}
        """Choices still running, by request id."""

    def __iter__(self) -> Iterator[Delta]:
        outbox: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        try:
            self._submit(outbox.put)
            while self._open:
                yield self._noted(outbox.get())
        finally:
            self._abort()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        outbox = DeltaQueue(asyncio.get_running_loop())
        try:
            self._submit(outbox.put)
            while self._open:
                for delta in await outbox.take():
                    yield self._noted(delta)
        finally:
            self._abort()

    def _submit(self, sink: Sink) -> None:
        self._among.add(self)
        for request in self._requests:
            # As one call: however many there are, none is turned away because others of it wait.
            self._engine.submit(replace(request, call=self._requests[0].id), sink)
            self._open[request.id] = request.n

    def _noted(self, delta: Delta) -> Delta:
        if delta.error is not None:
            raise delta.error
        if delta.finish_reason == "abort":
            raise EngineStopped("the engine gave the request up")
        if delta.finish_reason == "error":
            raise RequestFailed("the request failed")
        if delta.finish_reason is not None:
            self._open[delta.request_id] -= 1
            if not self._open[delta.request_id]:
                del self._open[delta.request_id]
        return delta

    def _abort(self) -> None:
        for request_id in self._open:
            self._engine.abort(request_id)
        self._open.clear()
        self._among.discard(self)
