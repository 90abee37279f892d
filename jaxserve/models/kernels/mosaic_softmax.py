"""The online softmax of the Mosaic GPU kernels: one block of keys and values, in shared memory, at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxserve.models.kernels import mosaic_work
from jaxserve.models.kernels.mosaic_work import LOG2_E, MASKED

State = tuple[jax.Array, ...]
"""Weighted values [M, H], the highest scores so far [M] (base 2) and the sums of weights [M]."""


class Scoring(Protocol):
    """What a kernel's static sizes say of scores."""

    @property
    def head_dim(self) -> int:
        """H."""

    @property
    def scale(self) -> float:
        """Factor on the scores."""

    @property
    def softcap(self) -> float | None:
        """Bound of the scores (tanh), None = none."""


def fold(
    scoring: Scoring,
    state: State,
    q_tile: Any,
    block: Any,
    seen: Callable[[tuple[int, ...]], jax.Array] | None,
) -> State:
    """One block of keys and values into the running state.

    Args:
        scoring: static.
        state: before it.
        q_tile: queries [M, H].
        block: [B, 2H], keys and values side by side.
        seen: (shape [M, B]) -> which keys each query sees; None = all.
    """
    acc, peak, mass = state
    keys, values = (block.at[:, pl.ds(side * scoring.head_dim, scoring.head_dim)] for side in range(2))
    scores = mosaic_work.products(q_tile, keys)
    if scoring.softcap is None:
        scores = scores * (scoring.scale * LOG2_E)
    else:
        scores = jnp.tanh(scores * (scoring.scale / scoring.softcap)) * (scoring.softcap * LOG2_E)
    if seen is not None:
        scores = jnp.where(seen(scores.shape), scores, MASKED)
    highest = jnp.maximum(peak, scores.max(axis=1))
    decay = jnp.exp2(peak - highest)
    likely = jnp.exp2(scores - lax.broadcast_in_dim(highest, scores.shape, [0]))
    mass = mass * decay + likely.sum(axis=1)
    acc = acc * lax.broadcast_in_dim(decay, acc.shape, [0])
    return mosaic_work.accumulate(acc, likely.astype(q_tile.dtype), values), highest, mass


def clear_values(scoring: Scoring, block: Any, size: int, kept: Callable[[jax.Array], jax.Array]) -> None:
    """Zero the values of a block of `size` keys but those that `kept` (indices -> mask) names: pages may hold anything
    where nothing has been written, NaN too."""
    values = block.at[:, pl.ds(scoring.head_dim, scoring.head_dim)]
    where = mosaic_work.iota((size, scoring.head_dim), 0)
    held = mosaic_work.load(values, plgpu.Layout.WGMMA)
    values[...] = jnp.where(kept(where), held, jnp.zeros_like(held))
    plgpu.commit_smem()
