"""Drawn tokens against the oracle's distribution: chi-square and total variation, for each knob and for combinations.

Seeds are fixed, so a test that passes always passes. Significance of one test: 1e-5 (chi-square: p-value; total
variation: 2^K exp(-2 N e^2), Hoeffding's bound over the 2^K subsets of K tokens), 1e-3 over all of them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from sampling_cases import KNOBS, random_row
from sampling_oracle import Row, distribution, edit
from sampling_stage import empty_state, load, pack, step
from scipy.stats import chisquare

from jaxserve.sampling.columns import SAMPLE

V, ROWS, STEPS = 1000, 64, 48
N = ROWS * STEPS
SIGNIFICANCE = 1e-5


def logits_of(seed: int) -> np.ndarray:
    """A vocabulary of which 60 tokens matter, some of them tied; the rest are a thin tail."""
    rng = np.random.default_rng([11, seed])
    x = rng.normal(-12, 1, size=V)
    x[rng.permutation(V)[:60]] = np.round(rng.normal(scale=1.5, size=60), 1)
    return x.astype(np.float32)


def draw(logits: np.ndarray, row: Row) -> np.ndarray:
    """N tokens: ROWS copies of the row, told apart by choice, at STEPS positions; the history stays as it is."""
    state = empty_state(ROWS, V)
    rows: list[Row | None] = [row] * ROWS
    loaded = load(state, 0, row)
    state = loaded._replace(
        counts=loaded.counts.at[:].set(loaded.counts[0]),
        bias_ids=loaded.bias_ids.at[:].set(loaded.bias_ids[0]),
        bias_values=loaded.bias_values.at[:].set(loaded.bias_values[0]),
    )
    packed, mask = pack(rows, list(range(ROWS)), ROWS, V)
    packed.view(SAMPLE)["choice"][:, 0] = np.arange(ROWS)
    tokens = []
    for position in range(STEPS):
        packed.view(SAMPLE)["position"] = position
        _, out = step(state, np.tile(logits, (ROWS, 1)), packed, mask)
        tokens.append(np.asarray(out)[:, 0])
    return np.concatenate(tokens)


def check(logits: np.ndarray, row: Row, claimed: Row | None = None) -> None:
    """Draws as `row` asks and compares with the oracle for `claimed` (the same row unless given)."""
    p, _ = distribution(logits, claimed or row)
    counts = np.bincount(draw(logits, row), minlength=V)
    outside = counts[p < 1e-7].sum()
    assert outside <= 1, f"{outside} tokens from outside the support"
    support = np.flatnonzero(p)
    variation = 0.5 * np.abs(counts / N - p).sum()
    # A tail of many tokens counts as one, which loosens nothing: its subsets are left out of the bound too.
    heavy = support[p[support] * N >= 5]
    groups = [*([token] for token in heavy), np.setdiff1d(np.arange(V), heavy)]
    observed = np.array([counts[group].sum() for group in groups], float)
    expected = np.array([p[group].sum() for group in groups]) * N
    bound = math.sqrt((len(groups) * math.log(2) - math.log(SIGNIFICANCE)) / (2 * N))
    assert 0.5 * np.abs(observed - expected).sum() / N < bound, f"total variation {variation} of {row}"
    usable = expected >= 5
    if usable.sum() > 1:
        observed, expected = observed[usable], expected[usable]
        assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > SIGNIFICANCE, row


def drawable(seed: int, knobs: tuple[str, ...] | None) -> Row:
    """A random row that draws at all and whose token histories stay put."""
    rng = np.random.default_rng([12, seed])
    while True:
        row = random_row(rng, V, knobs)
        x = edit(logits_of(seed), row)
        if row.temperature > 0 and np.isfinite(x).sum() > 1 and x.max() < 80:
            return row


@pytest.mark.parametrize("knob", KNOBS)
def test_each_knob(knob: str) -> None:
    for seed in range(2):
        check(logits_of(seed), drawable(100 * KNOBS.index(knob) + seed, (knob,)))


@pytest.mark.parametrize("seed", range(50))
def test_combinations(seed: int) -> None:
    check(logits_of(seed), drawable(seed, None))


def test_a_wrong_distribution_is_noticed() -> None:
    """The check itself: temperature 1.1 is told from temperature 1."""
    with pytest.raises(AssertionError):
        check(logits_of(0), Row(temperature=1.1), claimed=Row())
