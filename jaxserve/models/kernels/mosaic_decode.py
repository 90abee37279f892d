"""Decode attention over paged keys and values on Hopper (Pallas Mosaic GPU): flash decoding with fixed splits.

Every query is a row of its own: one token with the group of heads that share a key/value head. A row's keys are cut at
multiples of `SPLIT`; a thread block takes one (row, split, key/value head) after the other, fetches pages into a ring
of shared memory and runs the online softmax in registers. A second kernel adds the splits of a row in their order. So
the bits of a row depend on its own keys only: not on the batch, nor on which block took which split.

What a split leaves is its normalised result, as the sum of two bfloat16 (17 bits, what the tile of the queries has
room for), and the base-2 logarithm of its weight.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxserve.models.kernels.mosaic_combine import combine_kernel
from jaxserve.models.kernels.mosaic_split import SplitShape, split_kernel
from jaxserve.models.kernels.mosaic_work import LOG2_E, MASKED, SPLIT
from jaxserve.models.kernels.work_list import spread


class DecodeWork(NamedTuple):
    """Work list of X queries, each over the keys of some row of the page table; entry i is (query, split)."""

    entries: jax.Array
    """int32 [4, I]: query, number of its split from position 0, row of the page table, end of what the query sees."""
    starts: jax.Array
    """int32 [X + 1]: entries before each query; the last is the number of entries."""


def list_splits(rows_X: jax.Array, ends_X: jax.Array, positions: int, window: int | None) -> DecodeWork:
    """The work list of X queries.

    Args:
        rows_X: int32, the row of the page table whose keys a query sees.
        ends_X: int32, the end of what it sees (its position + 1); 0 = no query, its result is zero.
        positions: most that a row of the page table holds.
        window: positions that a query sees, None = all.
    """
    first_X = jnp.zeros_like(ends_X) if window is None else jnp.maximum(ends_X - window, 0)
    splits_X = jnp.where(ends_X > 0, (ends_X - 1) // SPLIT - first_X // SPLIT + 1, 0)
    most = -(-positions // SPLIT) if window is None else (min(positions, window) + 2 * SPLIT - 2) // SPLIT
    x, number, starts = spread(splits_X, ends_X.shape[0] * most)
    return DecodeWork(jnp.stack([x, number + (first_X // SPLIT)[x], rows_X[x], ends_X[x]]), starts)


def decode(
    q_XNH: jax.Array,
    kv: jax.Array,
    page_table: jax.Array,
    first_page: jax.Array | int,
    work: DecodeWork,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Attention of single queries.

    Args:
        q_XNH: bfloat16 or float16.
        kv: [pages, page, 2K, H] of the same dtype, K and V interleaved.
        page_table: int32 [R, C], a ring of pages within the layer.
        first_page: the layer's page 0.
        work: of these queries, and for this window.
        scale, window, softcap, sinks_N: as `AttentionBackend.write_and_attend`.

    Returns:
        [X, N, H] in the dtype of q.
    """
    count, heads, head_dim = q_XNH.shape
    kv_heads = kv.shape[2] // 2
    shape = SplitShape(kv_heads, heads // kv_heads, head_dim, kv.shape[1], page_table.shape[1], scale, window, softcap)
    q_XKMH = q_XNH.reshape(count, kv_heads, shape.group, head_dim)
    q_XKMH = jnp.pad(q_XKMH, ((0, 0), (0, 0), (0, shape.padded_group - shape.group), (0, 0)))
    base = jnp.asarray(first_page, jnp.int32).reshape(1)
    split, combine = (
        split_kernel(shape, work.entries.shape[1], q_XNH.dtype),
        combine_kernel(shape, count, q_XNH.dtype),
    )
    flat = kv.reshape(-1, 2 * kv_heads * head_dim)
    parts, weights = split(work.entries, work.starts[-1:], page_table, base, q_XKMH.reshape(-1, head_dim), flat)
    out_XNH: jax.Array = combine(work.starts, parts, weights, _sinks(shape, sinks_N))
    return out_XNH


def _sinks(shape: SplitShape, sinks_N: jax.Array | None) -> jax.Array:
    """Base-2 logits [rows of a split's result]; where there is no sink one that weighs nothing."""
    sinks = jnp.full((shape.kv_heads, shape.padded_group), MASKED, jnp.float32)
    if sinks_N is not None:
        sinks = sinks.at[:, : shape.group].set(sinks_N.astype(jnp.float32).reshape(shape.kv_heads, -1) * LOG2_E)
    return jnp.pad(sinks.reshape(-1), (0, shape.partial_rows - sinks.size))
