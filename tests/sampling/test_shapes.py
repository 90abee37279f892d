"""Shapes and types in annotations are checked while testing: a wrong array is refused where it enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from jaxserve.sampling import chunks, knobs, masses, pipeline
from jaxserve.sampling.columns import NUM_COLUMNS
from jaxserve.sampling.state import init_state

N, V = 2, 64
LOGITS, ON = jnp.zeros((N, V)), jnp.ones(N, bool)


def test_right_arrays_are_accepted() -> None:
    assert knobs.apply_grammar(LOGITS, jnp.zeros((N, 2), jnp.int32), ON).shape == (N, V)


@pytest.mark.parametrize(
    "call",
    [
        lambda: knobs.apply_grammar(LOGITS, jnp.zeros((N + 1, 2), jnp.int32), ON),
        lambda: knobs.apply_grammar(LOGITS, jnp.zeros((N, 2)), ON),
        lambda: knobs.apply_grammar(LOGITS.astype(jnp.bfloat16), jnp.zeros((N, 2), jnp.int32), ON),
        lambda: chunks.chunk_maxima(LOGITS),
        lambda: masses.weigh(jnp.zeros(3, jnp.int32), 30),
        lambda: pipeline.sample(
            init_state(4, V), LOGITS, jnp.zeros((N + 1, NUM_COLUMNS), jnp.int32), jnp.zeros((N, 2), jnp.int32)
        ),
        lambda: jax.jit(knobs.count_token)(
            jnp.zeros((4, V), jnp.uint16), jnp.zeros(N, jnp.int32), jnp.zeros(1, jnp.int32), ON
        ),
    ],
    ids=["rows", "kind", "precision", "rank", "integers", "samples", "traced"],
)
def test_wrong_arrays_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeCheckError):
        call()
