"""What one step leaves behind: slot state, failures, inactive rows, several samples of one slot."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from sampling_oracle import Row
from sampling_stage import empty_state, load, outputs, pack, params_of, run, step

from jaxserve.sampling.columns import NUM_COLUMNS
from jaxserve.sampling.knobs import count_token
from jaxserve.sampling.packing import HISTORY, HISTORY_COLUMNS, pack_history, pack_params, pack_row
from jaxserve.sampling.pipeline import write_history
from jaxserve.sampling.state import IN_PROMPT, abstract_state, init_state

V = 1000


def logits_of(seed: int, rows: int = 64) -> np.ndarray:
    return np.random.default_rng([8, seed]).normal(scale=3, size=(rows, V)).astype(np.float32)


def test_banned_rows_fail_alone() -> None:
    logits = logits_of(0)
    rows: list[Row | None] = [Row(seed=i) for i in range(64)]
    _, alone = run(logits, rows)
    nothing = np.zeros(V, bool)
    rows[3] = Row(allowed=nothing)
    rows[9] = Row(allowed=nothing, temperature=0)
    logits[20] = -np.inf
    logits[30] = np.nan
    rows[40] = Row(logit_bias=tuple((i, -100.0) for i in range(500)), allowed=np.arange(V) < 500)
    _, out = run(logits, rows)
    failed = [3, 9, 20, 30, 40]
    assert list(np.flatnonzero(out[:, 1])) == failed
    others = np.delete(np.arange(64), failed)
    np.testing.assert_array_equal(out[others], alone[others])


def test_inactive_rows_leave_the_state_alone() -> None:
    state = init_state(64, V)
    state = state._replace(last_token=state.last_token + 7, mu=state.mu + 3)
    packed = np.zeros((16, NUM_COLUMNS), np.int32)
    logits = np.full((16, V), np.nan, np.float32)
    after, _ = step(state, logits, packed, np.zeros((16, 32), np.int32))
    for a, b in zip(state, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_active_rows_change_their_slot_only() -> None:
    row = Row(frequency_penalty=0.5, mirostat_target=4.0, prompt=[5], output=[6])
    state = load(empty_state(64, V), 11, row)
    packed, mask = pack([row], [11], 16, V)
    after, out = step(state, logits_of(1, 16), packed, mask)
    token = int(out[0, 0])
    others = np.arange(64) != 11
    assert int(after.last_token[11]) == token
    for a, b in zip(state, after, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])
    expected = np.asarray(state.counts[11]).copy()
    expected[token] += 1
    np.testing.assert_array_equal(after.counts[11], expected)


def test_logits_of_infinity_are_certain() -> None:
    logits = logits_of(3, 16)
    logits[0, [4, 9]] = np.inf
    _, out = run(logits, [Row(seed=i) for i in range(16)])
    got = outputs(out)[0]
    assert got.token in (4, 9)
    assert got.sampling_logprob == pytest.approx(math.log(0.5), abs=1e-5)


def test_history_counts_tokens_in_chunks_and_clears_first() -> None:
    rng = np.random.default_rng(9)
    prompt, output = rng.integers(V, size=1300), rng.integers(100, size=700)
    state = empty_state(64, V)
    state = state._replace(counts=state.counts + 3)
    load_chunk = jax.jit(write_history)
    for packed in pack_history(5, prompt, output):
        state = load_chunk(state, packed)
    expected = np.bincount(output, minlength=V) + IN_PROMPT * (np.bincount(prompt, minlength=V) > 0)
    np.testing.assert_array_equal(state.counts[5], expected)
    assert (np.asarray(state.counts[4]) == 3).all()
    for packed in pack_history(5, ()):
        state = load_chunk(state, packed)
    assert not np.asarray(state.counts[5]).any()


def test_counts_saturate() -> None:
    state = empty_state(64, V)
    for _ in range(3):
        for packed in pack_history(0, (), [1] * 16000)[:32]:
            packed.view(HISTORY)["clear"] = 0
            state = jax.jit(write_history)(state, packed)
    assert int(state.counts[0, 1]) == 32767
    row = Row(frequency_penalty=1e-9, logit_bias=((1, 100.0),))
    packed_rows, mask = pack([row], [0], 16, V)
    biased = load(state, 0, Row(logit_bias=row.logit_bias))
    after, out = step(biased, np.zeros((16, V), np.float32), packed_rows, mask)
    assert int(out[0, 0]) == 1
    assert int(after.counts[0, 1]) == 32767


@pytest.mark.parametrize("before", [0, 5, IN_PROMPT, IN_PROMPT | 7, 32765, IN_PROMPT | 32765, 32767])
def test_several_tokens_of_a_slot_are_counted_in_one_step(before: int) -> None:
    """Equal and different tokens of one slot, the same token in other slots, samples that don't count."""
    samples = [(2, 7), (2, 7), (2, 7), (2, 8), (0, 7), (1, 9), (1, 9), (5, 3)]
    counted = [True] * 5 + [True, False] + [False]
    slots, tokens = (np.array(x, np.int32) for x in zip(*samples, strict=True))
    counts = np.full((6, 10), before, np.uint16)
    after = np.asarray(jax.jit(count_token)(counts, slots, tokens, np.array(counted)))
    expected = counts.astype(int)
    for (slot, token), on in zip(samples, counted, strict=True):
        old = expected[slot, token]
        expected[slot, token] += on and (old & 32767) < 32767
    np.testing.assert_array_equal(after, expected)


DRAFTED = {
    "greedy": Row(temperature=0),
    "drawn": Row(seed=3, temperature=1.3),
    "top_p": Row(seed=4, temperature=1.5, top_p=0.7, logit_bias=((9, 4.0),)),
    "penalties": Row(seed=5, repetition_penalty=1.4, frequency_penalty=0.5, presence_penalty=0.4),
    "greedy penalties": Row(temperature=0, frequency_penalty=1.9),
    "mirostat": Row(seed=6, mirostat_target=4.0, mirostat_lr=0.7),
    "all": Row(seed=7, mirostat_target=4.0, repetition_penalty=1.2, frequency_penalty=0.3, logit_bias=((17, 2.0),)),
}
LENGTH = 6


def drafted(state, slot, row, logits, first, drafts, neighbour):
    """One step of a row with drafts, behind another row with some: state and the results of its samples."""
    packed = np.zeros((16, NUM_COLUMNS), np.int32)
    places = [(neighbour, 3, (1, 2)), (row, slot, drafts)]
    x, index = np.zeros((16, V), np.float32), 0
    for one, at, guesses in places:
        constant = pack_params(params_of(one), 0, True)
        for offset, draft in enumerate((*guesses, None)):
            x[index] = logits[first + offset] if at == slot else 0
            fresh = first == 0
            pack_row(packed[index], constant, at, first + offset, token=index, offset=offset, draft=draft, fresh=fresh)
            index += 1
    state, out = step(state, x, packed, np.zeros((16, 32), np.int32))
    return state, outputs(np.asarray(out))[3 : 4 + len(drafts)]


@pytest.mark.parametrize("name", DRAFTED)
def test_a_row_with_drafts_gives_what_single_steps_give(name: str) -> None:
    """Tokens, log-probabilities and the slot's state, bit for bit, wherever the first wrong draft is."""
    row = replace(DRAFTED[name], prompt=[5, 17], output=[6])
    neighbour = Row(seed=8, mirostat_target=3.0, frequency_penalty=0.2)
    logits = logits_of(4, LENGTH)
    logits[[0, 1, 3]] += np.where(np.arange(V) == 17, 40.0, 0.0).astype(np.float32)  # several times the same token
    fresh = load(load(empty_state(64, V), 11, row), 3, neighbour)
    state, single, states = fresh, [], []
    for position in range(LENGTH):
        state, got = drafted(state, 11, row, logits, position, (), neighbour)
        single += got
        states.append(state)
    for right, expected in enumerate(states):
        drafts = [result.token for result in single[:-1]]
        if right < LENGTH - 1:
            drafts[right] = (drafts[right] + 1) % V
        after, got = drafted(fresh, 11, row, logits, 0, drafts, neighbour)
        assert got[: right + 1] == single[: right + 1]
        for ours, theirs in zip(after[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(ours[11], theirs[11])


def test_a_failed_sample_ends_its_row() -> None:
    """Its token reads as 0, which is no hit for a draft of 0."""
    row, logits = Row(temperature=0), logits_of(5, 3)
    logits[0], logits[1] = np.where(np.arange(V) == 7, 90.0, logits[0]), -np.inf
    after, got = drafted(empty_state(64, V), 11, row, logits, 0, (7, 0), Row())
    assert [one.failed for one in got[:2]] == [False, True]
    assert int(after.last_token[11]) == 0


def test_counts_along_drafts_saturate() -> None:
    row = Row(temperature=0, frequency_penalty=1e-9, output=[1] * 32766)
    logits = np.where(np.arange(V) == 1, 90.0, logits_of(6, 3)).astype(np.float32)
    after, got = drafted(load(empty_state(64, V), 11, row), 11, row, logits, 0, (1, 1), Row())
    assert [one.token for one in got] == [1, 1, 1]
    assert int(after.counts[11, 1]) == 32767


def test_resumed_sequence_continues_exactly() -> None:
    """Ten steps at once, and five, a preemption into another slot, five more: same tokens, same mu."""
    row = Row(seed=4, repetition_penalty=1.3, presence_penalty=0.4, mirostat_target=6.0, prompt=[1, 2, 3])
    logits = logits_of(10, 10)

    def generate(state: object, slot: int, start: int, stop: int, mu: float | None) -> list:
        results = []
        for position in range(start, stop):
            packed = np.zeros((16, NUM_COLUMNS), np.int32)
            constant = pack_params(params_of(row), 0, True)
            pack_row(packed[2], constant, slot, position, token=2, fresh=position == start, mu=mu)
            state, out = step(state, np.tile(logits[position], (16, 1)), packed, np.zeros((16, 32), np.int32))
            results.append(outputs(np.asarray(out))[2])
        return results

    straight = generate(load(empty_state(64, V), 8, row), 8, 0, 10, None)
    first = generate(load(empty_state(64, V), 8, row), 8, 0, 5, None)
    row.output = [got.token for got in first]
    second = generate(load(empty_state(64, V), 20, row), 20, 5, 10, first[-1].mu)
    assert first + second == straight


def test_count_memory_is_two_bytes_a_token() -> None:
    state = abstract_state(256, 200_000)
    assert state.counts.size * state.counts.dtype.itemsize == 102_400_000
    rest = sum(leaf.size * leaf.dtype.itemsize for leaf in state) - 102_400_000
    assert rest < 3_000_000


def test_loading_a_history_writes_in_place() -> None:
    state = abstract_state(64, 20_000)
    packed = jax.ShapeDtypeStruct((HISTORY_COLUMNS,), np.int32)
    memory = jax.jit(write_history, donate_argnums=0).lower(state, packed).compile().memory_analysis()
    assert memory.alias_size_in_bytes == sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    assert memory.temp_size_in_bytes < 64 * 20_000
