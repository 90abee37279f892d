"""Owns everything on the device: parameters, KV pages, slot state, and the compiled programs that work on them.

All programs are compiled by `compile` before the server is ready; afterwards only compiled executables are called, so
a missing shape would be an error, never a silent compilation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import NamedSharding, PartitionSpec

from jaxserve.config import EngineConfig
from jaxserve.engine import compilations, step
from jaxserve.engine.batch import Int32Array, Layout, build, choose_layout, layouts
from jaxserve.engine.engine import MaskMaker, RowResult
from jaxserve.engine.types import Plan, PlannedRow, SampledToken, Sequence, TokenLogprob
from jaxserve.models import LoadedModel, cache_spec, init_cache
from jaxserve.sampling.columns import NUM_COLUMNS
from jaxserve.sampling.logprobs import unpack_scores
from jaxserve.sampling.packing import (
    BIAS_COLUMNS,
    HISTORY_COLUMNS,
    MAX_TOP_LOGPROBS,
    pack_bias,
    pack_history,
    pack_params,
    pack_row,
    unpack_out,
)
from jaxserve.sampling.pipeline import write_bias, write_history
from jaxserve.sampling.state import SlotState, abstract_state, init_state

Compiled = Callable[..., Any]


@dataclass
class _SlotRow:
    """What the runner remembers of a sequence between steps."""

    constant: Int32Array
    """The part of its sampling row that never changes."""
    primed: bool = False
    """Whether its slot's recurrent state has been set up since it was (re)admitted."""
    mu: float | None = None
    """mirostat's state after its last fetched token; carried over a preemption."""


@dataclass
class Ticket:
    """A launched step: device arrays on their way to the host."""

    plan: Plan
    rows: int
    """R of its bucket."""
    result: step.ForwardResult
    scores: jax.Array | None
    hidden_RD: jax.Array | None
    routing: jax.Array | None
    out: jax.Array | None = None
    """Sampled tokens; None until sampling has been enqueued."""
    again: tuple[Collection[int], jax.Array] | None = None
    """Rows that were drawn a second time, and what came of it."""


class Runner:
    """Executes plans on the device. `launch` enqueues, `fetch` waits."""

    def __init__(self, config: EngineConfig, model: LoadedModel) -> None:
        compilations.listen()
        self._config = config
        self._model = model
        self._layouts = layouts(config)
        self._replicated = NamedSharding(model.mesh, PartitionSpec())
        self._cache = init_cache(model.config, **self._cache_arguments)
        self._state: SlotState = jax.device_put(
            init_state(config.max_num_seqs, model.config.vocab_size), self._replicated
        )
        self._masks = {
            layout.rows: self._put(np.zeros((layout.rows, -(-model.config.vocab_size // 32)), np.int32))
            for layout in self._layouts
        }
        self._forward: dict[Layout, Compiled] = {}
        self._sample: dict[int, Compiled] = {}
        self._score: dict[int, Compiled] = {}
        self._write_history: Compiled | None = None
        self._write_bias: Compiled | None = None
        self._rows: WeakKeyDictionary[Sequence, _SlotRow] = WeakKeyDictionary()

    @property
    def compilations(self) -> int:
        """XLA compilations of this process so far."""
        return compilations.count()

    # ------------------------------------------------------------------ compilation

    def compile(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Compiles every program there is, several at a time; `progress` gets (done, total)."""
        jobs = list(self._jobs())
        done = 0
        progress(done, len(jobs))
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            for keep, compiled in pool.map(lambda job: (job[0], job[1]()), jobs):
                keep(compiled)
                done += 1
                progress(done, len(jobs))

    def _jobs(self) -> Iterator[tuple[Callable[[Compiled], None], Callable[[], Compiled]]]:
        """(where to keep it, how to compile it), the slowest first."""
        for layout in reversed(self._layouts):
            yield partial(self._forward.__setitem__, layout), partial(self.lower_forward, layout)
        for layout in reversed(self._layouts):
            yield partial(self._score.__setitem__, layout.tokens), partial(self._compile_score, layout)
        for rows in self._masks:
            yield partial(self._sample.__setitem__, rows), partial(self._compile_sample, rows)
        yield partial(setattr, self, "_write_history"), partial(self._compile_write, write_history, HISTORY_COLUMNS)
        yield partial(setattr, self, "_write_bias"), partial(self._compile_write, write_bias, BIAS_COLUMNS)

    def lower_forward(self, layout: Layout) -> Compiled:
        """Compiles the forward program of one bucket."""
        function = partial(step.forward, layout, self._config.page_size, self._model.graphdef)
        cache = cache_spec(self._model.config, **self._cache_arguments)
        return self._compile(
            function,
            [self._abstract(leaf) for leaf in self._model.leaves],
            cache,
            self._abstract_state().last_token,
            self._int32(layout.size),
            donate=(1,),
        )

    def _compile_sample(self, rows: int) -> Compiled:
        def replicated(width: int, dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, width), dtype, sharding=self._replicated)

        return self._compile(
            step.sample,
            self._abstract_state(),
            replicated(self._model.config.vocab_size, np.float32),
            replicated(NUM_COLUMNS, np.int32),
            self._abstract(self._masks[rows]),
            donate=(0,),
        )

    def _compile_score(self, layout: Layout) -> Compiled:
        hidden = jax.ShapeDtypeStruct(
            (layout.tokens, self._model.config.hidden_size), self._config.dtype, sharding=self._replicated
        )
        leaves = [self._abstract(leaf) for leaf in self._model.leaves]
        return self._compile(
            partial(step.score, self._model.graphdef), leaves, hidden, self._int32(layout.tokens), donate=()
        )

    def _compile_write(self, function: Callable[..., SlotState], columns: int) -> Compiled:
        return self._compile(function, self._abstract_state(), self._int32(columns), donate=(0,))

    def _compile(self, function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...]) -> Compiled:
        with jax.set_mesh(self._model.mesh):
            return jax.jit(function, donate_argnums=donate).lower(*arguments).compile()

    # ------------------------------------------------------------------ steps

    def launch(self, plan: Plan, *, held: bool = False, masks: MaskMaker | None = None) -> Ticket:
        """Enqueues one step and returns at once. The sampling of a held step is left to `sample`."""
        layout = choose_layout(plan, self._layouts)
        for row in plan.rows:
            self._prepare(row)
        buffer = self._put(build(plan, layout, partial(self._pack_sampling, grammar=held or masks is not None)))
        result: step.ForwardResult = self._forward[layout](
            self._model.leaves, self._cache, self._state.last_token, buffer
        )
        self._cache = result.cache
        for row in plan.rows:
            if row.samples:
                self._rows[row.sequence].primed = True
        ticket = Ticket(
            plan=plan,
            rows=layout.rows,
            result=result,
            scores=self._launch_scores(plan, layout, result.hidden_TD),
            hidden_RD=result.hidden_RD if any(r.sequence.request.want_activations for r in plan.rows) else None,
            routing=result.routing if any(r.sequence.request.want_routing for r in plan.rows) else None,
        )
        for array in (ticket.scores, ticket.hidden_RD, ticket.routing):
            if array is not None:
                array.copy_to_host_async()
        if not held:
            self._sample_with(ticket, self._put(masks(plan, layout.rows)) if masks else self._masks[layout.rows])
        return ticket

    def sample(self, ticket: Ticket, masks: MaskMaker) -> None:
        """Enqueues the sampling of a held step, under masks."""
        self._sample_with(ticket, self._put(masks(ticket.plan, ticket.rows)))

    def _sample_with(self, ticket: Ticket, masks: jax.Array) -> None:
        result = ticket.result
        self._state, ticket.out = self._sample[ticket.rows](self._state, result.logits_RV, result.rows_RC, masks)
        ticket.out.copy_to_host_async()

    def sample_again(self, ticket: Ticket, again: Collection[int], masks: MaskMaker) -> None:
        """Enqueues a second draw of some rows of a sampled step, as if it were the first: only before the next launch.

        The first draw has changed the rows' slot state, so that is set up anew, as after an admission.
        """
        rows_RC = np.zeros((ticket.rows, NUM_COLUMNS), np.int32)
        for index in again:
            row = ticket.plan.rows[index]
            self._prime(row)
            self._rows[row.sequence].primed = False
            token = sum(before.count for before in ticket.plan.rows[: index + 1]) - 1
            self._pack_sampling(rows_RC[index], row, token, grammar=True)
            self._rows[row.sequence].primed = True
        arguments = (ticket.result.logits_RV, self._put(rows_RC), self._put(masks(ticket.plan, ticket.rows)))
        self._state, out = self._sample[ticket.rows](self._state, *arguments)
        out.copy_to_host_async()
        ticket.again = (again, out)

    def fetch(self, ticket: Ticket) -> list[RowResult]:
        """Waits for a step and unpacks it, one result for each planned row."""
        if ticket.out is None:
            raise RuntimeError("the step has not been sampled")
        out = np.asarray(ticket.out)
        if ticket.again is not None:
            again, redrawn = ticket.again
            out = out.copy()
            out[list(again)] = np.asarray(redrawn)[list(again)]
        scores = None if ticket.scores is None else np.asarray(ticket.scores)
        hidden = None if ticket.hidden_RD is None else np.asarray(ticket.hidden_RD, np.float32)
        routing = None if ticket.routing is None else np.asarray(ticket.routing)
        results, start = [], 0
        for index, row in enumerate(ticket.plan.rows):
            request = row.sequence.request
            results.append(
                RowResult(
                    sampled=self._sampled(out, index, row) if row.samples else None,
                    prompt_logprobs=() if scores is None else _row_scores(scores, start, row),
                    activation=hidden[index].tobytes() if hidden is not None and request.want_activations else None,
                    routing=_row_routing(routing, index) if request.want_routing else None,
                )
            )
            start += row.count
        return results

    def _prepare(self, row: PlannedRow) -> None:
        """Sets up a sequence's slot before its first sampling step there."""
        sequence, params = row.sequence, row.sequence.request.sampling
        known = self._rows.get(sequence)
        if known is None:
            wants_logprobs = sequence.request.logprobs is not None
            known = self._rows[sequence] = _SlotRow(pack_params(params, sequence.choice, wants_logprobs))
        if row.fresh:
            known.primed = False
        if row.samples and not known.primed:
            self._prime(row)

    def _prime(self, row: PlannedRow) -> None:
        """Writes what a slot must know of its sequence's prompt and committed output before it can sample."""
        sequence, params = row.sequence, row.sequence.request.sampling
        if params.uses_penalties:
            for packed in pack_history(sequence.slot, sequence.request.prompt, sequence.output):
                self._state = _ready(self._write_history)(self._state, self._put(packed))
        if params.logit_bias:
            self._state = _ready(self._write_bias)(self._state, self._put(pack_bias(sequence.slot, params)))

    def _pack_sampling(self, target: Int32Array, row: PlannedRow, token: int, *, grammar: bool) -> None:
        """Writes one row's knobs; `token`: its last one, in the batch; `grammar`: a mask restricts constrained rows."""
        known = self._rows[row.sequence]
        pack_row(
            target,
            known.constant,
            row.sequence.slot,
            row.position,
            token=token,
            fresh=not known.primed,
            grammar=grammar and row.sequence.request.constraint is not None,
            mu=known.mu,
        )

    def _launch_scores(self, plan: Plan, layout: Layout, hidden_TD: jax.Array) -> jax.Array | None:
        """Enqueues prompt log-probabilities when a row of the plan wants some."""
        targets = np.full(layout.tokens, -1, np.int32)
        wanted, start = False, 0
        for row in plan.rows:
            positions = _scored_positions(row)
            if len(positions):
                offset = start + positions.start - 1 - row.start
                targets[offset : offset + len(positions)] = row.sequence.request.prompt[
                    positions.start : positions.stop
                ]
                wanted = True
            start += row.count
        return self._score[layout.tokens](self._model.leaves, hidden_TD, self._put(targets)) if wanted else None

    def _sampled(self, out: npt.NDArray[np.int32], index: int, row: PlannedRow) -> SampledToken:
        request = row.sequence.request
        fetched = unpack_out(out, index, request.logprobs or 0)
        if request.sampling.mirostat_target is not None:
            self._rows[row.sequence].mu = fetched.mu
        logprob = None
        if request.logprobs is not None:
            logprob = TokenLogprob(fetched.token, fetched.logprob, fetched.sampling_logprob, fetched.top)
        return SampledToken(fetched.token, logprob, failed=bool(fetched.failed))

    # ------------------------------------------------------------------ small things

    @property
    def _cache_arguments(self) -> dict[str, Any]:
        config = self._config
        return {
            "num_pages": config.num_pages,
            "page_size": config.page_size,
            "dtype": config.dtype,
            "mesh": self._model.mesh,
            "backends": self._model.backends,
        }

    def _put(self, array: npt.NDArray[np.int32]) -> jax.Array:
        placed: jax.Array = jax.device_put(array, self._replicated)
        return placed

    def _int32(self, size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size,), np.int32, sharding=self._replicated)

    def _abstract_state(self) -> SlotState:
        return abstract_state(self._config.max_num_seqs, self._model.config.vocab_size, self._replicated)

    @staticmethod
    def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def _ready(program: Compiled | None) -> Compiled:
    if program is None:
        raise RuntimeError("Runner.compile has not been called")
    return program


def _scored_positions(row: PlannedRow) -> range:
    """Prompt positions whose log-probability this row's hidden states give (position p comes from p - 1)."""
    request = row.sequence.request
    first = request.prompt_logprobs_from
    if first is None or row.sequence.choice != 0:
        return range(0)
    return range(max(first, row.start + 1, 1), min(row.start + row.count + 1, len(request.prompt)))


def _row_scores(scores: npt.NDArray[np.int32], start: int, row: PlannedRow) -> tuple[tuple[int, TokenLogprob], ...]:
    request = row.sequence.request
    entries = []
    for position in _scored_positions(row):
        logprob, top = unpack_scores(scores, start + position - 1 - row.start, request.logprobs or 0)
        entries.append((position, TokenLogprob(request.prompt[position], logprob, None, top[:MAX_TOP_LOGPROBS])))
    return tuple(entries)


def _row_routing(routing: npt.NDArray[np.int32] | None, index: int) -> bytes | None:
    return None if routing is None else routing[:, index].astype("<i2").tobytes()
