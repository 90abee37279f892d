"""One API request while it runs: submitted to the engine, its deltas brought to the event loop, aborted if unwanted."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from jaxserve.api.lower import Job
from jaxserve.api.ports import EngineLike
from jaxserve.engine.requests import Delta, Request
from jaxserve.errors import EngineStopped, RequestFailed


class DeltaQueue:
    """Carries deltas from the engine thread into the event loop: one wake-up for each burst, no polling."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deltas: deque[Delta] = deque()
        self._filled = asyncio.Event()
        self._waking = False

    def put(self, delta: Delta) -> None:
        """Called on any thread; never blocks, never raises."""
        self._deltas.append(delta)
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the event loop has closed: nobody waits any more
                self._deltas.clear()

    def _wake(self) -> None:
        # Cleared before the deltas are read: whoever appends from now on wakes the loop again.
        self._waking = False
        self._filled.set()

    async def take(self) -> list[Delta]:
        """Everything that has arrived, at least one delta."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            taken = []
            while self._deltas:
                taken.append(self._deltas.popleft())
            if taken:
                return taken


class Generation:
    """The engine requests of one job, from submission to the end of their last choice.

    Args:
        engine: runs them.
        job: the validated request.
        cache_owner: whose cached prompts they use, whatever isolation key the request itself gives.
    """

    def __init__(self, engine: EngineLike, job: Job, cache_owner: str = "") -> None:
        self._engine = engine
        self._job = job
        self._owner = cache_owner
        self._queue = DeltaQueue(asyncio.get_running_loop())
        self._open: dict[str, int] = {}
        """Choices still running, by request id."""

    def submit(self) -> None:
        """Submits every prompt, or none.

        Raises:
            Overloaded: the engine's queue is full.
            EngineStopped: the engine no longer runs.
        """
        try:
            for prompt in self._job.prompts:
                self._engine.submit(self._owned(prompt.request), self._queue.put)
                self._open[prompt.request.id] = prompt.request.n
        except BaseException:
            self.abort()
            raise

    def _owned(self, request: Request) -> Request:
        key = json.dumps([self._owner, request.cache_key]) if self._owner else request.cache_key
        return replace(request, call=self._job.id, cache_key=key)

    def abort(self) -> None:
        """Ends what still runs. Idempotent."""
        for request_id in self._open:
            self._engine.abort(request_id)
        self._open.clear()

    async def __aiter__(self) -> AsyncIterator[list[Delta]]:
        """Deltas in the order they came, until every choice has ended.

        Raises:
            Exception: the error that a delta carries, or EngineStopped when the engine gave a choice up.
        """
        while self._open:
            deltas = await self._queue.take()
            good = list(itertools.takewhile(self._survives, deltas))
            if good:
                yield good
            if len(good) < len(deltas):
                raise _failure(deltas[len(good)])

    def _survives(self, delta: Delta) -> bool:
        """Notes the end of a choice; False when the request has failed."""
        if delta.finish_reason in ("error", "abort"):
            return False
        if delta.finish_reason is not None:
            self._open[delta.request_id] -= 1
            if not self._open[delta.request_id]:
                del self._open[delta.request_id]
        return True


def _failure(delta: Delta) -> Exception:
    if delta.error is not None:
        return delta.error
    if delta.finish_reason == "abort":
        return EngineStopped("the engine gave the request up")
    return RequestFailed("the request failed")
