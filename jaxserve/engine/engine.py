"""The engine loop and its thread: requests come in through an inbox, deltas leave through each request's sink.

One step ahead: step N+1 is launched before step N's tokens are read, so the device never waits for Python. Everything
but `submit`, `abort`, `stats` and `close` runs on the engine thread; there is no polling.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from jaxserve.engine.constraints import SequenceConstraints
from jaxserve.engine.plan import Advance, Plan, PlannedRow, RowResult
from jaxserve.engine.recovery import Recovery
from jaxserve.engine.requests import Delta, Request, Sink
from jaxserve.engine.scheduler import Scheduler
from jaxserve.engine.sequence import Sequence
from jaxserve.engine.speculation import Speculation
from jaxserve.engine.step_runner import StepRunner, Ticket
from jaxserve.engine.stream import RequestStream, send
from jaxserve.errors import DeviceLost, EngineStopped, InternalError, JaxserveError, RequestFailed
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

_QUIET_SECONDS = 1.0
"""Idle time after which the integrity check runs: it costs milliseconds that a request should not wait for."""


@dataclass(frozen=True)
class EngineStats:
    """A snapshot for `/metrics`; counters only grow."""

    waiting: int
    running: int
    free_pages: int
    total_pages: int
    cached_pages: int
    requests: int
    prompt_tokens: int
    cached_prompt_tokens: int
    generated_tokens: int
    preemptions: int
    prefix_query_tokens: int
    """Prompt tokens looked up in the prefix cache."""
    prefix_hit_tokens: int
    """Prompt tokens found there."""
    images_encoded: int
    """Images that went through the tower."""
    images_found: int
    """Images whose embeddings were still on the device."""
    steps: int
    compilations: int
    drafted_tokens: int
    """Tokens that were guessed and tried."""
    accepted_drafts: int
    """Those that were right: tokens that came without a step of their own."""


@dataclass
class _Counters:
    requests: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0


@dataclass(frozen=True)
class _Launched(Generic[Ticket]):
    """A step the device works on."""

    plan: Plan
    ticket: Ticket
    held: bool
    """Its sampling waits for masks."""


@dataclass(frozen=True)
class _Submit:
    request: Request
    sink: Sink
    arrived: float


@dataclass(frozen=True)
class _Abort:
    request_id: str


@dataclass(frozen=True)
class _Close:
    deadline: float
    """`time.monotonic()` until which running requests may finish."""


@dataclass(frozen=True)
class _Abandon:
    error: BaseException


_Order = _Submit | _Abort | _Close | _Abandon


class Engine(Generic[Ticket]):
    """Continuous batching over one runner.

    Args:
        scheduler: plans steps.
        runner: executes them.
        tokenizer: makes text of tokens.
        total_pages: KV pages there are.
        vocab_size: of the model.
        lookup: whether outputs are guessed from their own text.
        on_death: called on the engine thread if the loop dies.

    Raises:
        EngineStopped: from `submit`, after `close` or after the loop died.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: StepRunner[Ticket],
        tokenizer: Tokenizer,
        *,
        total_pages: int,
        vocab_size: int,
        lookup: bool = False,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._tokenizer = tokenizer
        self._total_pages = total_pages
        self._constraints = SequenceConstraints(-(-vocab_size // 32), self._fail)
        self._speculation = Speculation(lookup=lookup, forced=self._constraints.forced)
        self._on_death = on_death
        self._recovery = Recovery()
        self._inbox: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._streams: dict[str, RequestStream] = {}
        self._counters = _Counters()
        self._lock = threading.Lock()
        self._accepting = True
        self._stuck = False
        self._failure: BaseException | None = None
        self._deadline: float | None = None
        self._cut = 0
        self._thread = threading.Thread(target=self._run, name="jaxserve-engine", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """False once the loop has died or has been closed."""
        return self._thread.is_alive() and self._failure is None

    @property
    def failure(self) -> BaseException | None:
        """What the loop died of; None while it lives or after an orderly close."""
        return self._failure

    @property
    def cut(self) -> int:
        """Requests that had not ended when the engine did."""
        return self._cut

    @property
    def ready(self) -> bool:
        """Whether requests are accepted (everything is compiled before an engine is made)."""
        return self.healthy and self._accepting

    def submit(self, request: Request, sink: Sink) -> None:
        """Queues a request; its deltas go to `sink`. Thread-safe.

        Raises:
            EngineStopped: the engine no longer runs.
            Overloaded: too many requests wait; raised through the sink when only the scheduler can tell.
        """
        with self._lock:
            if not self._accepting:
                raise EngineStopped(self._stop_message())
            self._inbox.put(_Submit(request, sink, time.monotonic()))

    def abort(self, request_id: str) -> None:
        """Ends a request wherever it is; unknown ids are ignored. Thread-safe."""
        self._inbox.put(_Abort(request_id))

    def stats(self) -> EngineStats:
        """A snapshot of queues and counters. Thread-safe (single reads of integers)."""
        scheduler, counters = self._scheduler, self._counters
        return EngineStats(
            waiting=scheduler.num_waiting,
            running=scheduler.num_running,
            free_pages=scheduler.free_pages,
            total_pages=self._total_pages,
            cached_pages=scheduler.cached_pages,
            requests=counters.requests,
            prompt_tokens=counters.prompt_tokens,
            cached_prompt_tokens=counters.cached_prompt_tokens,
            generated_tokens=counters.generated_tokens,
            preemptions=scheduler.preemptions,
            prefix_query_tokens=scheduler.prefix_query_tokens,
            prefix_hit_tokens=scheduler.prefix_hit_tokens,
            images_encoded=0 if scheduler.images is None else scheduler.images.encoded,
            images_found=0 if scheduler.images is None else scheduler.images.found,
            steps=counters.steps,
            compilations=self._runner.compilations,
            drafted_tokens=self._speculation.drafted,
            accepted_drafts=self._speculation.accepted,
        )

    def close(self, timeout: float = 0.0) -> None:
        """Stops accepting, lets running requests finish for up to `timeout` seconds, fails the rest. Idempotent."""
        with self._lock:
            self._accepting = False
        self._inbox.put(_Close(time.monotonic() + timeout))
        if threading.current_thread() is not self._thread and not self._stuck:
            self._thread.join()

    def abandon(self, error: BaseException, patience: float = 2.0) -> None:
        """Dies of an error that came from outside, though a step may never return: every stream hears of it.

        Args:
            error: what it dies of.
            patience: seconds that the engine's thread gets to die by itself; then it is left where it hangs.
        """
        self._inbox.put(_Abandon(error))
        self._thread.join(patience)
        if self._thread.is_alive():
            self._stuck = True
            self._die(error)
            self._end_everything()

    # ------------------------------------------------------------------ the engine thread

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # noqa: BLE001 - every open stream must hear of it
            self._die(error)
        finally:
            self._end_everything()

    def _die(self, error: BaseException) -> None:
        self._failure = error
        _log.critical("the engine died", exc_info=error)
        if self._on_death is not None:
            self._on_death(error)

    def _loop(self) -> None:
        in_flight: _Launched[Ticket] | None = None
        while True:
            idle = in_flight is None and not self._scheduler.has_work
            self._drain_inbox(wait=idle)
            if self._closing(idle=in_flight is None and not self._scheduler.has_work):
                return
            try:
                in_flight = self._turn(in_flight)
            except DeviceLost:
                raise
            except Exception as error:  # noqa: BLE001 - only what broke the step may suffer from it
                self._recover(error)
                in_flight = None

    def _turn(self, in_flight: _Launched[Ticket] | None) -> _Launched[Ticket] | None:
        """Launches the next step and commits the one before it; returns what is then in flight."""
        if in_flight is not None and self._recovery.active:
            plan = None  # one step at a time, so that a failure tells whose it is
        else:
            plan = self._scheduler.plan(self._recovery.newcomers, self._speculation.propose)
        launched = self._launch(plan) if plan is not None else None
        committed = self._commit(in_flight) if in_flight is not None else []
        try:
            if launched is not None:
                self._constrain(launched)  # before anything is delivered: the device may be waiting for it
        finally:
            for advance in committed:
                self._deliver(advance)
        return launched

    def _recover(self, error: Exception) -> None:
        """After a failed step: everything that ran starts again from its tokens, and who broke it is ended.

        Raises:
            RuntimeError: pages or slots are not what they must be; the engine can't go on.
        """
        running = self._scheduler.restart()
        if not running:
            raise error  # nobody's fault but the engine's: it would fail for ever
        culprits = self._recovery.failed(running)
        self._scheduler.check()
        _log.error(
            "a step failed; %d sequences start again from their tokens, ended: %s",
            len(running) - len(culprits),
            [sequence.request.id for sequence in culprits],
            exc_info=error,
        )
        for sequence in culprits:
            self._end(sequence, InternalError("the request broke the step it was part of"))

    def _launch(self, plan: Plan) -> _Launched[Ticket]:
        """Starts a step; it is drawn at once unless a constraint rules whose next mask depends on the step before."""
        self._note_admissions(plan)
        held = bool(self._constraints.constraining(plan))
        masks = self._constraints.masks if not held and self._constraints.standing(plan) else None
        return _Launched(plan, self._runner.launch(plan, held=held, masks=masks), held)

    def _constrain(self, launched: _Launched[Ticket]) -> None:
        """Draws what waited for the step before; and once more what that step's tokens have come to restrict."""
        if launched.held:
            self._runner.sample(launched.ticket, self._constraints.masks)
        elif late := self._constraints.constraining(launched.plan):
            self._runner.sample_again(launched.ticket, late, self._constraints.masks)

    def _closing(self, *, idle: bool) -> bool:
        return self._deadline is not None and (idle or time.monotonic() >= self._deadline)

    def _drain_inbox(self, *, wait: bool) -> None:
        """Handles every queued message; blocks for the first one when there is nothing else to do."""
        if wait and self._deadline is None:
            self._handle(self._wait_for_order())
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                return
            self._handle(message)

    def _wait_for_order(self) -> _Order:
        """The next message, whenever it comes; a longer silence is used to verify pages and slots."""
        try:
            return self._inbox.get(timeout=_QUIET_SECONDS)
        except queue.Empty:
            self._scheduler.check()
            return self._inbox.get()

    def _handle(self, message: _Order) -> None:
        match message:
            case _Submit(request, sink, arrived):
                self._add(request, sink, arrived)
            case _Abort(request_id):
                self._scheduler.abort(request_id)
                stream = self._streams.pop(request_id, None)
                if stream is not None:
                    stream.abort()
            case _Abandon(error):
                raise error
            case _Close(deadline):
                self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def _add(self, request: Request, sink: Sink, arrived: float) -> None:
        try:
            stream = RequestStream(request, sink, self._tokenizer, arrived)
            self._scheduler.add(request)
        except JaxserveError as error:
            _refuse(request, sink, error)
        except Exception:  # noqa: BLE001 - whatever it is, it must not reach the other requests
            _log.exception("request %s could not be added", request.id)
            _refuse(request, sink, InternalError("the request could not be started"))
        else:
            self._counters.requests += 1
            self._counters.prompt_tokens += len(request.prompt)
            self._streams[request.id] = stream

    def _note_admissions(self, plan: Plan) -> None:
        for row in plan.rows:
            if row.fresh:
                stream = self._streams.get(row.sequence.request.id)
                if stream is not None and stream.admitted is None:
                    stream.admitted = time.monotonic()
                    stream.cached_tokens = row.sequence.cached
                    self._counters.cached_prompt_tokens += row.sequence.cached

    def _commit(self, step: _Launched[Ticket]) -> list[Advance]:
        """Takes over what a step returned, and has the constraints follow; what is left is to deliver it."""
        plan, results = step.plan, self._runner.fetch(step.ticket)
        self._counters.steps += 1
        for row, result in zip(plan.rows, results, strict=True):
            self._keep_scores(row, result)
        advances = self._scheduler.commit(plan, results)
        self._recovery.proven(advances)
        for advance in advances:
            self._speculation.learn(advance)
            for token in advance.tokens:
                self._constraints.advance(advance.sequence, token.token)
        return advances

    def _keep_scores(self, row: PlannedRow, result: RowResult) -> None:
        if result.prompt_logprobs:
            stream = self._streams.get(row.sequence.request.id)
            if stream is not None:
                stream.prompt_logprobs.update(result.prompt_logprobs)
                stream.prompt_routing.update(result.prompt_routing)

    def _deliver(self, advance: Advance) -> None:
        """Sends committed tokens on; a failure here ends this request only."""
        sequence = advance.sequence
        stream = self._streams.get(sequence.request.id)
        if stream is None:
            return
        try:
            self._push(stream, advance)
        except Exception:  # noqa: BLE001 - whatever it is, it must not reach the other requests
            _log.exception("request %s failed", sequence.request.id)
            self._scheduler.abort(sequence.request.id)
            stream.fail(InternalError("the output could not be produced"))
        if not stream.open:
            self._streams.pop(sequence.request.id, None)

    def _push(self, stream: RequestStream, advance: Advance) -> None:
        sequence = advance.sequence
        if advance.failed:
            error = RequestFailed("no token is left to sample from: logit_bias or a grammar bans every token")
            stream.fail(error, sequence.choice)
            return
        self._counters.generated_tokens += len(advance.tokens)
        stopped = stream.push(advance, running=self._scheduler.num_running)
        if stopped and sequence.finish_reason is None:
            self._scheduler.finish(sequence, "stop")

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """Ends one choice because its constraint failed."""
        known = isinstance(error, JaxserveError)
        self._end(sequence, error if known else InternalError("the request's constraint failed"))

    def _end(self, sequence: Sequence, error: Exception) -> None:
        """Ends one choice with an error."""
        self._scheduler.finish(sequence, "error")
        stream = self._streams.get(sequence.request.id)
        if stream is not None:
            stream.fail(error, sequence.choice)
            if not stream.open:
                self._streams.pop(sequence.request.id, None)

    def _end_everything(self) -> None:
        """After the loop: no stream stays open, no message stays unanswered."""
        with self._lock:
            self._accepting = False
        error = EngineStopped(self._stop_message())
        self._cut += len(self._streams)
        for stream in self._streams.values():
            stream.fail(error)
        self._streams.clear()
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(message, _Submit):
                self._cut += 1
                _refuse(message.request, message.sink, error)

    def _stop_message(self) -> str:
        if self._failure is not None:
            return f"the engine has died: {type(self._failure).__name__}"
        return "the engine is shutting down"


def _refuse(request: Request, sink: Sink, error: Exception) -> None:
    """Ends every choice of a request that never got a stream."""
    for choice in range(request.n):
        send(sink, Delta(request_id=request.id, choice=choice, finish_reason="error", error=error))
