"""Prompt log-probabilities: right, and never [T, V]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling_oracle import log_softmax

from jaxserve.sampling.logprobs import score_prompt, unpack_scores

D, V = 24, 3000


def inputs(T: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(T)
    hidden = rng.normal(size=(T, D)).astype(np.float32)
    weights = rng.normal(size=(V, D)).astype(np.float32)
    return hidden, weights, rng.integers(V, size=T).astype(np.int32)


def packed_scores(hidden: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda h, w, t: score_prompt(h, lambda x: x @ w.T, t))(hidden, weights, targets))


@pytest.mark.parametrize("T", [4, 48])
def test_scores_are_the_log_softmax(T: int) -> None:
    hidden, weights, targets = inputs(T)
    targets[1] = -1
    packed = packed_scores(hidden, weights, targets)
    raw = np.stack([log_softmax(row) for row in (hidden.astype(np.float64) @ weights.T.astype(np.float64))])
    for t in range(T):
        logprob, top = unpack_scores(packed, t, 5)
        if targets[t] >= 0:
            assert logprob == pytest.approx(raw[t, targets[t]], abs=1e-4)
        order = np.argsort(-raw[t])[:5]
        assert [token for token, _ in top] == list(order)
        np.testing.assert_allclose([value for _, value in top], raw[t, order], atol=1e-4)


def test_never_holds_logits_of_every_position() -> None:
    T = 2048
    hidden, weights, targets = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in inputs(T))
    scorer = jax.jit(lambda h, w, t: score_prompt(h, lambda x: x @ w.T, t))
    memory = scorer.lower(hidden, weights, targets).compile().memory_analysis()
    assert memory.temp_size_in_bytes < T * V * 4 / 10


def test_a_vocabulary_below_five_returns_what_there_is() -> None:
    packed = packed_scores(
        np.ones((2, 1), np.float32), np.array([[1.0], [3.0]], np.float32), np.array([0, 1], np.int32)
    )
    _, top = unpack_scores(packed, 0, 5)
    assert [token for token, _ in top] == [1, 0]


def test_positions_must_fill_whole_chunks() -> None:
    with pytest.raises(ValueError, match="multiple"):
        score_prompt(jnp.ones((20, 2)), lambda x: x, jnp.zeros(20, jnp.int32))
