"""Encoding: what each part of the buffer holds, the rings of page tables, and commands that travel."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve.engine.batch import Layout, choose_layout
from jaxserve.engine.command import Draw, Launch, Redraw, SlotLoads, from_words, to_words
from jaxserve.engine.encode import Encoder
from jaxserve.engine.plan import Plan, PlannedRow
from jaxserve.engine.requests import Request
from jaxserve.engine.sequence import Sequence
from jaxserve.sampling.packing import unpack_rows
from jaxserve.sampling.params import SamplingParams


def row(start: int, tokens: tuple[int, ...], *pages: tuple[int, list[int]], **changes: Any) -> PlannedRow:
    """A row of a request with the wishes that `changes` names beside `samples` and `slot`."""
    samples, slot = changes.pop("samples", 0), changes.pop("slot", 0)
    wishes = {"sampling": SamplingParams()} | changes
    sequence = Sequence(Request(id="r", prompt=(1, 2, 3, 4), max_tokens=4, **wishes), 0, 0)
    sequence.slot = slot
    tables = tuple((first, array("i", ids)) for first, ids in pages)
    return PlannedRow(sequence, start, tokens, tables, samples, fresh=False, position=6)


def launch(plan: Plan, layout: Layout, *, draw: bool = True) -> Launch:
    return Encoder((layout,)).launch(plan, draw=draw)


def any_loads(command: Launch) -> bool:
    return bool(command.loads.histories or command.loads.biases)


def test_rows_are_packed_one_after_the_other() -> None:
    plan = Plan((row(5, (7, 8, 9), (0, [3, 4]), slot=2), row(0, (-1,), (0, [5]), samples=1, slot=3)))
    layout = Layout(8, 3, 2, (4,))
    views = layout.split(launch(plan, layout).batch)
    assert views.tokens_T.tolist() == [7, 8, 9, -1, 0, 0, 0, 0]
    assert views.cu_q_lens.tolist() == [0, 3, 4, 4]
    assert views.kv_lens_R.tolist() == [8, 1, 0]
    assert views.slots_R.tolist() == [2, 3, 0]
    assert views.page_tables[0].tolist() == [[3, 4, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
    samples = unpack_rows(jnp.asarray(views.samples_NC))
    assert samples.active.tolist() == [True, False]
    assert (samples.token[0], samples.slot[0], samples.position[0]) == (3, 3, 6)


def test_a_row_yields_as_many_tokens_as_it_has_samples() -> None:
    verified = row(4, (5, 6, 7), (0, [1]), samples=3, slot=1)
    plan = Plan((row(0, (1, 2), (0, [2])), verified, row(9, (-1,), (0, [3]), samples=1, slot=2)))
    layout = Layout(8, 4, 5, (4,))
    samples = unpack_rows(jnp.asarray(layout.split(launch(plan, layout).batch).samples_NC))
    assert samples.token[:4].tolist() == [2, 3, 4, 5]
    assert samples.slot[:4].tolist() == [1, 1, 1, 2]
    assert samples.position[:4].tolist() == [6, 7, 8, 6]
    assert samples.last[:4].tolist() == [False, False, True, True]
    assert samples.active.tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("first", range(9))
@pytest.mark.parametrize("count", range(5))
def test_blocks_lie_in_rings(first: int, count: int) -> None:
    ids = list(range(11, 11 + count))
    layout = Layout(4, 2, 2, (7, 4, 12))
    plan = Plan((row(0, (1,), (0, [1]), (0, [2]), (0, [3])), row(0, (1,), (0, [9]), (first, ids), (2, [8]))))
    full, ring, other = layout.split(launch(plan, layout).batch).page_tables
    assert ring[0].tolist() == [2, 0, 0, 0]
    expected = np.zeros(4, np.int32)
    for block, page in enumerate(ids, first):
        expected[block % 4] = page
    assert ring[1].tolist() == expected.tolist()
    assert full.tolist() == [[1] + [0] * 6, [9] + [0] * 6]
    assert other.tolist() == [[3] + [0] * 11, [0, 0, 8] + [0] * 9]


def test_the_smallest_bucket_that_holds_the_plan() -> None:
    buckets = (Layout(2, 1, 1, (4,)), Layout(4, 2, 2, (4,)), Layout(8, 2, 4, (4,)))
    one, two = row(0, (1, 2), (0, [1])), row(0, (1,), (0, [1]))
    assert choose_layout(Plan((one,)), buckets) is buckets[0]
    assert choose_layout(Plan((two, two)), buckets) is buckets[1]
    assert choose_layout(Plan((one, one)), buckets) is buckets[1]
    assert choose_layout(Plan((dataclasses.replace(one, samples=2),)), buckets) is buckets[1], "too many samples"
    with pytest.raises(ValueError, match="exceeds every bucket"):
        choose_layout(Plan((two, two, two)), buckets)


def test_a_context_is_as_wide_as_the_row_with_most_pages() -> None:
    narrow, whole = Layout(8, 2, 2, (2, 1)), Layout(8, 2, 2, (4, 2))
    few, many = row(0, (1,), (0, [1, 2]), (0, [3])), row(0, (1,), (0, [1, 2]), (0, [3, 4]))
    assert choose_layout(Plan((few, few)), (narrow, whole)) is narrow
    assert choose_layout(Plan((few, many)), (narrow, whole)) is whole
    assert choose_layout(Plan((row(0, (1,), (0, [1, 2, 3]), (0, [4])),)), (narrow, whole)) is whole


def test_a_slot_is_loaded_before_its_first_sample_and_after_an_admission() -> None:
    layout = Layout(8, 2, 2, (4,))
    encoder = Encoder((layout,))
    sampling = SamplingParams(repetition_penalty=1.5, logit_bias=((3, 1.0),))
    first = row(0, (1, 2), (0, [1]), sampling=sampling)
    assert not any_loads(encoder.launch(Plan((first,)), draw=True)), "it does not sample yet"
    second = dataclasses.replace(first, samples=1)
    loaded = encoder.launch(Plan((second,)), draw=True).loads
    assert (len(loaded.histories), len(loaded.biases)) == (1, 1)
    assert not any_loads(encoder.launch(Plan((second,)), draw=True))
    again = encoder.launch(Plan((dataclasses.replace(second, fresh=True),)), draw=True).loads
    assert (len(again.histories), len(again.biases)) == (1, 1)


def commands() -> list[Launch | Draw | Redraw]:
    layout = Layout(8, 3, 2, (4, 2))
    sampling = SamplingParams(repetition_penalty=1.5, logit_bias=((3, 1.0),))
    loud = row(0, (1, 2), (0, [3]), (0, [4]), samples=1, sampling=sampling, prompt_logprobs_from=1, want_routing=True)
    quiet = row(0, (1, 2), (0, [3]), (0, [4]))
    masks = np.arange(6, dtype=np.int32).reshape(2, 3)
    encoder = Encoder((layout,))
    started = encoder.launch(Plan((loud,)), draw=False)
    redraw = encoder.redraw(Plan((loud,)), layout, {0}, masks)
    seeing = dataclasses.replace(layout, images=True, rotary_axes=3, whole_images=True)
    return [started, launch(Plan((quiet,)), layout), launch(Plan((quiet,)), seeing), Draw(masks), redraw]


def arrays(command: object) -> list[object]:
    """A command's fields, arrays as lists."""
    found: list[object] = []
    for field in dataclasses.fields(command):  # type: ignore[arg-type]
        value = getattr(command, field.name)
        if isinstance(value, SlotLoads):
            value = [[one.tolist() for one in part] for part in (value.histories, value.biases)]
        found.append(value.tolist() if isinstance(value, np.ndarray) else value)
    return found


@pytest.mark.parametrize("command", commands(), ids=lambda command: type(command).__name__)
def test_commands_travel_between_processes(command: Launch | Draw | Redraw) -> None:
    words = np.frombuffer(to_words(command).tobytes(), np.int32)
    received = from_words(words)
    assert type(received) is type(command)
    assert arrays(received) == arrays(command)


def test_words_that_are_no_command_are_refused() -> None:
    with pytest.raises(ValueError, match="no step command"):
        from_words(np.array([9, 0, 0, 0, 0], np.int32))
