"""Drafts: a row that samples several positions in one step, each as if the drafts before it were right.

Sample i of a row is drawn from the logits behind the row's first i drafts, with the counts and mirostat's mu that hold
if these are what the samples before it draw. So a sample is the sequence's own as long as every sample before it has
drawn its draft, and then it has the same bits as if it had been drawn in a step of its own (speculative decoding after
Leviathan et al. 2023, with the draw's own randomness in place of an acceptance test). A row without drafts is the case
of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt16

from jaxserve.sampling.columns import RowInputs
from jaxserve.sampling.state import IN_PROMPT, MAX_COUNT


class Acceptance(NamedTuple):
    """Which samples are their sequence's."""

    kept: Bool[Array, " N"]
    """Every sample of the row before it has drawn its draft."""
    leaves: Bool[Array, " N"]
    """The last kept one of its row: the slot's state comes from it."""


def accept(rows: RowInputs, token: Int32[Array, " N"], failed: Bool[Array, " N"]) -> Acceptance:
    """Compares what was drawn with the drafts; rows that are not active are neither kept nor leave anything."""
    hit = (token == rows.draft) & ~failed & ~rows.last
    misses = jnp.cumsum(~hit, dtype=jnp.int32) - ~hit  # before each sample, over all rows
    index = jnp.arange(hit.shape[0])
    kept = rows.active & (misses == misses[jnp.maximum(index - rows.offset, 0)])
    return Acceptance(kept, kept & ~hit)


def count_along(counts_NV: UInt16[Array, "N V"], rows: RowInputs) -> UInt16[Array, "N V"]:
    """Each sample's counts with the drafts before it in its row added, as `knobs.count_token` adds what was drawn."""

    def add() -> jax.Array:
        index = jnp.arange(counts_NV.shape[0])
        # Sample j has the draft of sample i before it.
        before_ji = (index[None] < index[:, None]) & (index[None] >= (index - rows.offset)[:, None])
        equal = (rows.draft[:, None] == rows.draft).astype(jnp.int32)
        times_ji = jnp.sum(before_ji[:, None] * equal[None], axis=2, dtype=jnp.int32)
        draft_ji = jnp.where(before_ji, rows.draft[None], counts_NV.shape[1])  # out of bounds: dropped
        old = counts_NV.at[index[:, None], draft_ji].get(mode="fill", fill_value=0)
        count = jnp.minimum((old & MAX_COUNT).astype(jnp.int32) + times_ji, MAX_COUNT).astype(jnp.uint16)
        # Equal pairs write the same.
        return counts_NV.at[index[:, None], draft_ji].set((old & jnp.uint16(IN_PROMPT)) | count, mode="drop")

    wanted = jnp.any(rows.active & rows.penalized & (rows.offset > 0))
    counted: jax.Array = lax.cond(wanted, add, lambda: counts_NV)
    return counted


def mu_along(
    rows: RowInputs, mu: Float32[Array, " N"], step: Callable[[Int32[Array, " N"]], Float32[Array, " N"]]
) -> Float32[Array, " N"]:
    """mirostat's bound at each sample, if the drafts before it are drawn.

    Args:
        rows: the samples.
        mu: the bound at each row's first sample.
        step: by how much drawing some tokens [N] lowers the bound.
    """

    def follow() -> jax.Array:
        lower = step(jnp.maximum(rows.draft, 0))

        def body(offset: jax.Array, mu: jax.Array) -> jax.Array:
            return jnp.where(rows.offset == offset, jnp.roll(mu - lower, 1), mu)

        along: jax.Array = lax.fori_loop(1, jnp.max(rows.offset) + 1, body, mu)
        return along

    wanted = jnp.any(rows.active & rows.mirostat & (rows.offset > 0))
    along: jax.Array = lax.cond(wanted, follow, lambda: mu)
    return along
