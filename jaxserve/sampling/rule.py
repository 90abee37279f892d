"""A rule of one's own: a pure function of logits, compiled into the sampling program before its first stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, UInt16, UInt32

from jaxserve.sampling.columns import RowInputs
from jaxserve.sampling.state import IN_PROMPT, MAX_COUNT


class Rows(NamedTuple):
    """What a rule may know of N rows, each about to draw a token."""

    position: Int32[Array, " N"]
    """Index of that token in the output (0 = first)."""
    counts: UInt16[Array, "N V"]
    """How often each token occurs in the output so far."""
    in_prompt: Bool[Array, "N V"]
    """Whether it occurs in the prompt."""
    seed: UInt32[Array, "N 2"]
    """The request's seed, high and low word: randomness of one's own comes from it, the choice and the position."""
    choice: Int32[Array, " N"]
    """Which of the request's `n` completions it is."""
    temperature: Float32[Array, " N"]
    """0 = the likeliest token is taken."""


Rule = Callable[[Float32[Array, "N V"], Rows], Float32[Array, "N V"]]
"""Logits of the model to logits that everything else goes on with: bias, penalties, grammar, temperature, truncations.
-inf bans a token."""


def apply(rule: Rule, logits_NV: jax.Array, rows: RowInputs, counts_NV: jax.Array) -> jax.Array:
    """The rule's logits, float32 [N, V].

    It sees one row at a time, so it can't make a row depend on those beside it.
    """
    told = Rows(
        rows.position,
        counts_NV & jnp.uint16(MAX_COUNT),
        counts_NV & jnp.uint16(IN_PROMPT) != 0,
        rows.seed,
        rows.choice,
        jnp.where(rows.draws, 1.0 / rows.inverse_temperature, 0.0),
    )

    def one(logits_V: jax.Array, row: Rows) -> jax.Array:
        return rule(logits_V[None], Rows(*(part[None] for part in row)))[0]

    return jax.vmap(one)(logits_NV, told).astype(jnp.float32)


def shape_of(rule: Rule, vocab_size: int) -> jax.ShapeDtypeStruct:
    """Shape and type of what a rule returns for one row of a vocabulary."""
    V = vocab_size
    kinds = (((), "int32"), ((V,), "uint16"), ((V,), "bool"), ((2,), "uint32"), ((), "int32"), ((), "float32"))
    rows = Rows(*(jax.ShapeDtypeStruct((1, *shape), kind) for shape, kind in kinds))  # type: ignore[arg-type]
    made: jax.ShapeDtypeStruct = jax.eval_shape(rule, jax.ShapeDtypeStruct((1, V), "float32"), rows)
    return made
