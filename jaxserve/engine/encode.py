"""From a `Plan` to the `StepCommand`s that carry it out. Knows sequences; knows no device.

What a sequence's samples share over its life (its packed knobs) is packed once and remembered, and so is whether its
slot has been told of its history: a slot is loaded before its first sample after an admission.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from jaxserve.engine.batch import Int32Array, Layout, choose_layout
from jaxserve.engine.command import Launch, Redraw, SlotLoads
from jaxserve.engine.image_batch import ImageEncoder
from jaxserve.engine.plan import Plan, PlannedRow
from jaxserve.engine.sequence import Sequence
from jaxserve.sampling.columns import NUM_COLUMNS
from jaxserve.sampling.packing import pack_bias, pack_history, pack_params, pack_row


@dataclass
class _Known:
    """What the encoder remembers of a sequence between steps."""

    constant: Int32Array
    """The part of its samples that never changes."""
    primed: bool = False
    """Whether its slot's recurrent state has been set up since it was (re)admitted."""
    mu: float | None = None
    """mirostat's state after its last fetched token; carried over a preemption."""


class Encoder:
    """Plans in, commands out.

    Args:
        layouts: the buckets there are, ascending.
        images: of a model that reads images.
    """

    def __init__(self, layouts: tuple[Layout, ...], images: ImageEncoder | None = None) -> None:
        self._layouts = layouts
        self._images = images
        self._known: WeakKeyDictionary[Sequence, _Known] = WeakKeyDictionary()

    def launch(self, plan: Plan, *, draw: bool) -> Launch:
        """The command that starts a step; without `draw` a `Draw` with masks must follow.

        Few requests ask for scores of their prompt: only the largest bucket has a program for them.
        """
        layout = self._layouts[-1] if any(map(scored_positions, plan.rows)) else choose_layout(plan, self._layouts)
        loads = [_loads(row) for row in plan.rows if self._must_load(row)]
        command = Launch(
            layout=layout,
            batch=self._batch(plan, layout, grammar=not draw),
            loads=_joined(loads),
            score_targets=_score_targets(plan, layout),
            draw=draw,
            keep_hidden=any(row.sequence.request.want_activations for row in plan.rows),
            keep_routing=any(row.sequence.request.want_routing for row in plan.rows),
            images=() if self._images is None else tuple(map(self._images.pack, plan.encodings)),
        )
        for row in plan.rows:
            if row.samples:
                self._known[row.sequence].primed = True
        return command

    def redraw(self, plan: Plan, layout: Layout, again: Collection[int], masks: Int32Array) -> Redraw:
        """Draws some rows of a launched plan once more under masks.

        The first draw has changed the rows' slot state, so that is set up anew, as after an admission.
        """
        samples_NC, loads = np.zeros((layout.samples, NUM_COLUMNS), np.int32), []
        token = sample = 0
        for index, row in enumerate(plan.rows):
            if index in again:
                loads.append(_loads(row))
                self._pack_samples(samples_NC[sample:], row, token=token, grammar=True, fresh=True)
            token, sample = token + row.count, sample + row.samples
        return Redraw(_joined(loads), samples_NC, masks)

    def remember_mu(self, sequence: Sequence, mu: float) -> None:
        """Notes mirostat's state, for a sequence that loses its slot."""
        self._known[sequence].mu = mu

    def _must_load(self, row: PlannedRow) -> bool:
        """Whether a row's slot has to be told of its sequence before this step."""
        sequence, request = row.sequence, row.sequence.request
        known = self._known.get(sequence)
        if known is None:
            constant = pack_params(request.sampling, sequence.choice, request.logprobs is not None)
            known = self._known[sequence] = _Known(constant)
        if row.fresh:
            known.primed = False
        return row.samples > 0 and not known.primed

    def _batch(self, plan: Plan, layout: Layout, *, grammar: bool) -> Int32Array:
        """Packs a plan. Always a new buffer: on CPU the device may read the host's memory while the step runs."""
        buffer = np.zeros(layout.size, np.int32)
        views = layout.split(buffer)
        token = sample = 0
        for index, row in enumerate(plan.rows):
            views.tokens_T[token : token + row.count] = row.tokens
            views.kv_lens_R[index] = row.start + row.count
            views.slots_R[index] = row.sequence.slot
            if row.samples:
                self._pack_samples(views.samples_NC[sample:], row, token=token, grammar=grammar)
            token, sample = token + row.count, sample + row.samples
            views.cu_q_lens[index + 1] = token
        views.cu_q_lens[len(plan.rows) + 1 :] = token
        write_page_tables(plan, layout, buffer.data)
        if self._images is not None:
            self._images.write(plan, views)
        return buffer

    def _pack_samples(
        self, target: Int32Array, row: PlannedRow, *, token: int, grammar: bool, fresh: bool = False
    ) -> None:
        """Writes a row's samples.

        Args:
            target: int32 [at least row.samples, NUM_COLUMNS].
            row: the row.
            token: index of its first token in the packed batch.
            grammar: whether the step has masks; they count where the request has a constraint.
            fresh: whether its slot's state is set up by this draw even if an earlier one has done so.
        """
        known = self._known[row.sequence]
        first = token + row.count - row.samples
        for index, draft in enumerate((*row.drafts, None)):
            pack_row(
                target[index],
                known.constant,
                row.sequence.slot,
                row.position + index,
                token=first + index,
                offset=index,
                draft=draft,
                fresh=fresh or not known.primed,
                grammar=grammar and row.sequence.request.constraint is not None,
                mu=known.mu,
            )


def scored_positions(row: PlannedRow) -> range:
    """Prompt positions whose log-probability this row's hidden states give (position p comes from p - 1)."""
    request = row.sequence.request
    first = request.prompt_logprobs_from
    if first is None or row.sequence.choice != 0:
        return range(0)
    return range(max(first, row.start + 1, 1), min(row.start + row.count + 1, len(request.prompt)))


def write_page_tables(plan: Plan, layout: Layout, words: memoryview) -> None:
    """Block b's page goes to column b % C; the blocks of a step are at most C, so they wrap once at most.

    Through a memoryview, which takes an array of integers in a fifth of the time that numpy takes.
    """
    start = layout.tables_offset
    for group, columns in enumerate(layout.columns):
        for index, row in enumerate(plan.rows):
            first, pages = row.pages[group]
            line, column = start + index * columns, first % columns
            beyond = column + len(pages) - columns
            if beyond <= 0:
                words[line + column : line + column + len(pages)] = pages
            else:
                words[line + column : line + columns] = pages[:-beyond]
                words[line : line + beyond] = pages[-beyond:]
        start += layout.rows * columns


def _loads(row: PlannedRow) -> SlotLoads:
    """What a slot must know of its sequence's prompt and committed output before it can sample."""
    sequence, params = row.sequence, row.sequence.request.sampling
    histories = pack_history(sequence.slot, sequence.request.prompt, sequence.output) if params.uses_penalties else ()
    biases = (pack_bias(sequence.slot, params),) if params.logit_bias else ()
    return SlotLoads(tuple(histories), biases)


def _joined(loads: list[SlotLoads]) -> SlotLoads:
    return SlotLoads(
        tuple(history for load in loads for history in load.histories),
        tuple(bias for load in loads for bias in load.biases),
    )


def _score_targets(plan: Plan, layout: Layout) -> Int32Array | None:
    """Prompt tokens whose log-probability is wanted, each at the position before it."""
    wanted = list(_scored_tokens(plan))
    if not wanted:
        return None
    targets = np.full(layout.tokens, -1, np.int32)
    for offset, tokens in wanted:
        targets[offset : offset + len(tokens)] = tokens
    return targets


def _scored_tokens(plan: Plan) -> Iterator[tuple[int, tuple[int, ...]]]:
    start = 0
    for row in plan.rows:
        positions = scored_positions(row)
        if len(positions):
            prompt = row.sequence.request.prompt
            yield start + positions.start - 1 - row.start, prompt[positions.start : positions.stop]
        start += row.count
