"""One API request while it runs: submitted to the engine, its deltas brought to the event loop, aborted if unwanted."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakKeyDictionary

from jaxserve.api.deadlines import NO_DEADLINE, Deadline
from jaxserve.api.lower import Job
from jaxserve.api.ports import EngineLike
from jaxserve.engine.requests import Delta, Request
from jaxserve.errors import EngineStopped, RequestFailed, SlowClient

MAX_PENDING = 1024
"""Deltas of a choice that wait for a client that does not read; beyond them its request ends."""


class Mailbox:
    """Brings news from other threads into one event loop: one wake-up for each burst, whoever it is for; no polling."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._news: deque[DeltaQueue] = deque()
        self._waking = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Mailbox:
        """The loop's own."""
        box = _MAILBOXES.get(loop)
        if box is None:
            box = _MAILBOXES[loop] = cls(loop)
        return box

    def ring(self, queue: DeltaQueue) -> None:
        """Has a queue's reader woken. Called on any thread; never blocks, never raises."""
        self._news.append(queue)
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the event loop has closed: nobody waits any more
                self._news.clear()

    def _wake(self) -> None:
        # Cleared before the news are read: whoever appends from now on wakes the loop again.
        self._waking = False
        while self._news:
            self._news.popleft().wake()


_MAILBOXES: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


class DeltaQueue:
    """One request's deltas, on their way from the engine thread to the event loop.

    Args:
        loop: where they are taken.
        capacity: deltas it holds while it is `stalled`.
        overflowed: called once, on the engine thread, when there are more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        capacity: int = MAX_PENDING,
        overflowed: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._mailbox = Mailbox.of(loop)
        self._deltas: deque[Delta] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._rung = False
        self._capacity = capacity
        self._overflowed = overflowed
        self.stalled = False
        """Whether the reader waits for its client. Where the event loop is late itself, that is not the client's."""
        self.full = False
        """Whether deltas had to be dropped."""

    def put(self, delta: Delta) -> None:
        """Called on any thread; never blocks, never raises."""
        if self.full or (self.stalled and len(self._deltas) >= self._capacity):
            self._drop()
            return
        self._deltas.append(delta)
        if not self._rung:
            self._rung = True
            self._mailbox.ring(self)

    def _drop(self) -> None:
        if not self.full:
            self.full = True
            self._overflowed()

    def wake(self) -> None:
        """On the event loop: the reader goes on, with or without deltas."""
        self._rung = False  # before the deltas are read, as in `Mailbox`
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def take(self) -> list[Delta]:
        """Everything that has arrived; waits for it. Nothing if `wake` was called without reason.

        Raises:
            SlowClient: deltas had to be dropped; what came before them has been taken.
        """
        if not self._deltas:
            if self.full:
                raise SlowClient("the client read too slowly: its request was ended")
            self._reader = self._loop.create_future()
            await self._reader
        taken = []
        while self._deltas:
            taken.append(self._deltas.popleft())
        return taken


class Generation:
    """The engine requests of one job, from submission to the end of their last choice.

    Args:
        engine: runs them.
        job: the validated request.
        cache_owner: whose cached prompts they use, whatever isolation key the request itself gives.
        client: whose turn it takes when requests wait.
        deadline: when it must have ended.
    """

    def __init__(
        self,
        engine: EngineLike,
        job: Job,
        *,
        cache_owner: str = "",
        client: str = "",
        deadline: Deadline = NO_DEADLINE,
    ) -> None:
        self._engine = engine
        self._job = job
        self._owner = cache_owner
        self._client = client
        self._deadline = deadline
        self._late = False
        capacity = MAX_PENDING * sum(prompt.request.n for prompt in job.prompts)
        self._queue = DeltaQueue(asyncio.get_running_loop(), capacity, self._give_up)
        self._open: dict[str, int] = {}
        """Choices still running, by request id."""

    def submit(self) -> None:
        """Submits every prompt, or none.

        Raises:
            Overloaded: the engine's queue is full.
            EngineStopped: the engine no longer runs.
            RequestTimeout: it is too late.
        """
        self._check_time()
        try:
            for prompt in self._job.prompts:
                self._engine.submit(self._owned(prompt.request), self._queue.put)
                self._open[prompt.request.id] = prompt.request.n
        except BaseException:
            self.abort()
            raise

    def _owned(self, request: Request) -> Request:
        key = json.dumps([self._owner, request.cache_key]) if self._owner else request.cache_key
        return replace(request, call=self._job.id, cache_key=key, client=self._client)

    def abort(self) -> None:
        """Ends what still runs. Idempotent."""
        for request_id in self._open:
            self._engine.abort(request_id)
        self._open.clear()

    def _give_up(self) -> None:
        for request_id in tuple(self._open):
            self._engine.abort(request_id)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """While the client is waited for: then deltas do not pile up without a bound."""
        self._queue.stalled = True
        yield
        self._queue.stalled = False

    def nudge(self) -> None:
        """On the event loop: whoever waits for deltas gets none, and may do something else in between."""
        self._queue.wake()

    async def __aiter__(self) -> AsyncIterator[list[Delta]]:
        """Deltas in the order they came, until every choice has ended; none after a `nudge`.

        Raises:
            Exception: the error that a delta carries, or EngineStopped when the engine gave a choice up.
            RequestTimeout: some choice had not ended in time.
        """
        with self._alarm():
            while self._open:
                deltas = await self._queue.take()
                good = list(itertools.takewhile(self._survives, deltas))
                if good or not deltas:
                    yield good
                if len(good) < len(deltas):
                    raise _failure(deltas[len(good)])
                if self._open:
                    self._check_time()

    @contextmanager
    def _alarm(self) -> Iterator[None]:
        """Wakes the reader when its time is over."""
        left = self._deadline.left
        if left is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(max(0.0, left), self._expire)
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._late = True
        self._queue.wake()

    def _check_time(self) -> None:
        left = self._deadline.left
        if self._late or (left is not None and left <= 0):
            raise self._deadline.error()

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
