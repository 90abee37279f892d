"""A row's result depends on nothing but the row: not on R, slot, order, neighbours, or the path the batch takes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_cases import random_logits, random_row
from sampling_oracle import Row, distribution, random_word
from sampling_stage import empty_state, load, outputs, pack, run, step

from jaxserve.sampling.columns import BITS, SAMPLE
from jaxserve.sampling.draw import random_words
from jaxserve.sampling.packing import unpack_rows

V = 1000
seeds = st.integers(0, 2**32 - 1)
words_of = jax.jit(lambda rows: random_words(unpack_rows(rows)))


def batch_of(seed: int, size: int = 64) -> tuple[np.ndarray, list[Row]]:
    rng = np.random.default_rng([5, seed])
    return np.stack([random_logits(rng, V) for _ in range(size)]), [random_row(rng, V) for _ in range(size)]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seeds)
def test_result_does_not_depend_on_the_number_of_rows(seed: int) -> None:
    logits, rows = batch_of(seed)
    _, together = run(logits, list(rows))
    for size in (16, 2):
        start = seed % (64 - size)
        _, out = run(logits[start : start + size], list(rows[start : start + size]))
        np.testing.assert_array_equal(out, together[start : start + size])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seeds)
def test_result_does_not_depend_on_order_or_slot(seed: int) -> None:
    logits, rows = batch_of(seed)
    rng = np.random.default_rng(seed)
    order, slots = rng.permutation(64), rng.permutation(64)
    state, out = run(logits, list(rows))
    moved_state, moved = run(logits[order], [rows[i] for i in order], [int(slots[i]) for i in order])
    np.testing.assert_array_equal(moved, out[order])
    for before, after in zip(state, moved_state, strict=True):
        np.testing.assert_array_equal(np.asarray(after)[slots], np.asarray(before))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seeds, st.integers(1, 63))
def test_neighbours_change_nothing(seed: int, kept: int) -> None:
    """The same rows beside other knobs and other logits, NaN among them, and beside inactive rows."""
    logits, rows = batch_of(seed)
    _, out = run(logits, list(rows))
    others, knobs = batch_of(seed + 1)
    others[:kept] = logits[:kept]
    others[kept:, ::7] = np.nan
    _, beside = run(others, [*rows[:kept], *knobs[kept:]])
    np.testing.assert_array_equal(beside[:kept], out[:kept])
    others[kept:] = np.nan
    _, alone = run(others, [*rows[:kept], *[None] * (64 - kept)])
    np.testing.assert_array_equal(alone[:kept], out[:kept])


@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.9])
def test_list_and_whole_vocabulary_agree(top_p: float) -> None:
    """Flat rows force the whole-vocabulary path on themselves only; steep rows get the list's answer either way."""
    rng = np.random.default_rng(6)
    logits = rng.normal(scale=4, size=(64, V)).astype(np.float32)
    rows: list[Row | None] = [Row(top_p=top_p, seed=i) for i in range(64)]
    _, alone = run(logits, rows)
    flat = logits.copy()
    flat[1::2] = rng.normal(scale=0.01, size=(32, V))
    rows[1::2] = [Row(typical_p=0.9, seed=i) for i in range(32)]
    _, beside = run(flat, rows)
    np.testing.assert_array_equal(beside[::2], alone[::2])


def test_nucleus_beyond_the_list_draws_from_the_vocabulary() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(scale=0.05, size=V).astype(np.float32)
    logits = np.tile(x, (64, 1))
    p, _ = distribution(x, Row(top_p=0.5))
    assert np.count_nonzero(p) > 128, "the nucleus must exceed the list for this test to mean something"
    _, out = run(logits, [Row(top_p=0.5, seed=i) for i in range(64)])
    for i, got in enumerate(outputs(out)):
        assert got.token == int(np.searchsorted(np.cumsum(p), random_word(Row(seed=i)) / 2**32, side="right"))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seeds)
def test_neutral_knobs_are_exact_identities(seed: int) -> None:
    """Stages forced to run with neutral values give the same bits as stages skipped."""
    logits, rows = batch_of(seed)
    plain = [
        dataclasses.replace(
            row, repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0, logit_bias=(), allowed=None
        )
        for row in rows
    ]
    _, expected = run(logits, list(plain))
    state = empty_state(64, V)
    for slot in range(4):  # a history and a bias of zeros, so that the neutral edits have something to work on
        loaded = Row(prompt=[1, 2, 3], output=[2, 2, 5], frequency_penalty=1.0, logit_bias=((2, 0.0), (7, 0.0)))
        state = load(state, slot, loaded)
    packed, mask = pack(list(plain), list(range(64)), 64, V)
    flags = packed.view(SAMPLE)["flags"]
    flags |= BITS["penalized"] | BITS["constrained"]
    flags[:4] |= BITS["biased"]
    _, out = step(state, logits, packed, np.full_like(mask, -1))
    np.testing.assert_array_equal(np.asarray(out), expected)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(-(2**63), 2**64 - 1), st.integers(0, 127), st.integers(0, 2**31 - 1))
def test_random_bits_are_the_documented_fold(seed: int, choice: int, position: int) -> None:
    row = Row(seed=seed, choice=choice, position=position)
    packed, _ = pack([row, row], [0, 1], 2, V)
    words = words_of(packed)
    assert [int(word) for word in words] == [random_word(row)] * 2
    if 0 <= seed < 2**31:
        key = jax.random.key(seed, impl="threefry2x32")
        folded = jax.random.fold_in(jax.random.fold_in(key, choice), jnp.uint32(position))
        assert int(jax.random.key_data(folded)[0]) == random_word(row)


def test_choices_and_positions_draw_differently() -> None:
    logits = np.zeros((64, V), np.float32)
    _, out = run(logits, [Row(seed=3, choice=i % 8, position=i // 8) for i in range(64)])
    assert len(set(out[:, 0])) > 55
