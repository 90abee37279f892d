"""Every knob, alone and combined, against the float64 oracle: distribution, token, mu and log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from sampling_cases import KNOBS, random_logits, random_row
from sampling_oracle import Row, distribution, drawn_tokens, edit, log_softmax, next_mu
from sampling_stage import outputs, run

from jaxserve.sampling.packing import RowOutput

NUDGES = tuple((a, b) for b in (0.0, -1e-5, 1e-5) for a in (0.0, -3e-6, 3e-6))
"""Rounding in float32 may move a token across a boundary that lies this near; nothing else may differ."""


def mismatch(logits: np.ndarray, row: Row, got: RowOutput) -> str:
    """What is wrong with one row's result, or nothing."""
    x = edit(logits, row)
    if np.all(np.isneginf(x)):
        return "" if got.failed else "should have failed"
    if got.failed:
        return "failed"
    raw = log_softmax(logits.astype(np.float64))
    if abs(got.logprob - raw[got.token]) > 1e-4 + 1e-6 * abs(raw[got.token]):
        return f"logprob {got.logprob} is not {raw[got.token]}"
    if not (reason := wrong_draw(logits, row, got, 0.0, 0.0)):
        return reason
    reasons = [wrong_draw(logits, row, got, *nudges) for nudges in NUDGES]
    return "" if "" in reasons else reasons[0]


def wrong_draw(logits: np.ndarray, row: Row, got: RowOutput, nudge: float, entropy_nudge: float) -> str:
    p, whole = distribution(logits, row, nudge, entropy_nudge)
    expected = {int(np.argmax(p))} if row.temperature == 0 else drawn_tokens(p, row, 1e-5)
    if got.token not in expected:
        return f"token {got.token} is not in {expected}"
    # Where a rounding moves u across a boundary the token may carry almost no mass.
    if p[got.token] > 1e-12 and abs(got.sampling_logprob - np.log(p[got.token])) > 2e-4:
        return f"sampling_logprob {got.sampling_logprob} is not {np.log(p[got.token])}"
    if row.mirostat_target is not None and row.temperature > 0:
        mu = next_mu(row, whole, got.token)
        if abs(got.mu - mu) > 1e-3:
            return f"mu {got.mu} is not {mu}"
    return ""


def check(logits: np.ndarray, rows: list[Row]) -> None:
    _, out = run(logits, list(rows))
    wrong = [
        (row, reason)
        for x, row, got in zip(logits, rows, outputs(out), strict=True)
        if (reason := mismatch(x, row, got))
    ]
    assert not wrong, f"{len(wrong)} of {len(rows)} rows differ, first: {wrong[0]}"


@pytest.mark.parametrize("knob", [*KNOBS, "neutral"])
def test_each_knob_alone(knob: str) -> None:
    rng = np.random.default_rng([1, *knob.encode()])
    for _ in range(4):
        logits = np.stack([random_logits(rng, 1000) for _ in range(64)])
        check(logits, [random_row(rng, 1000, (knob,)) for _ in range(64)])


SOME = 10


@pytest.mark.parametrize("batch", [*range(SOME), *(pytest.param(n, marks=pytest.mark.slow) for n in range(SOME, 24))])
def test_knobs_combined(batch: int) -> None:
    rng = np.random.default_rng([2, batch])
    logits = np.stack([random_logits(rng, 1000) for _ in range(64)])
    check(logits, [random_row(rng, 1000) for _ in range(64)])


@pytest.mark.parametrize("vocab", [1, 97])
def test_small_vocabularies(vocab: int) -> None:
    rng = np.random.default_rng([3, vocab])
    for _ in range(100):
        logits = np.stack([random_logits(rng, vocab) for _ in range(2)])
        check(logits, [random_row(rng, vocab) for _ in range(2)])


def test_alternatives_are_the_five_likeliest_of_the_raw_model() -> None:
    rng = np.random.default_rng(4)
    logits = np.stack([random_logits(rng, 1000) for _ in range(64)])
    _, out = run(logits, [random_row(rng, 1000) for _ in range(64)])
    for x, got in zip(logits, outputs(out), strict=True):
        raw = log_softmax(x.astype(np.float64))
        order = np.lexsort((np.arange(1000), -x))[:5]
        assert [token for token, _ in got.top] == list(order)
        np.testing.assert_allclose([logprob for _, logprob in got.top], raw[order], atol=1e-4, rtol=1e-6)
