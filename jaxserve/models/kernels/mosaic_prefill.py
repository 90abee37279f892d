"""Prefill attention over paged keys and values on Hopper (Pallas Mosaic GPU); FlashAttention-3 (Shah et al. 2024).

A tile is 128 query vectors of one key/value head: some tokens of a row, each with its group of heads. Two warpgroups
hold 64 of them each; a third fetches pages into a ring of shared memory. XLA puts queries into whole tiles before and
takes results out after, since rows begin at any token. Query vectors are rows of a matrix product, blocks of keys are
aligned at position 0: a token's bits do not depend on the tile it falls into.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxserve.models.kernels.mosaic_tile import TILE_ROWS, TileShape, tile_kernel
from jaxserve.models.kernels.mosaic_work import LOG2_E, MASKED
from jaxserve.models.kernels.work_list import spread
from jaxserve.models.metadata import AttentionMeta


class PrefillWork(NamedTuple):
    """Tiles of the rows with several new tokens, W at most, and where tokens are in them; Q tokens are in a tile."""

    tiles: jax.Array
    """int32 [3, W]: row, position of the first token, end of the positions of its tokens."""
    valid: jax.Array
    """int32 [1]: valid tiles."""
    tokens_WQ: jax.Array
    """int32: token of each place."""
    tile_T: jax.Array
    """int32: tile of each token (anything for tokens of other rows)."""
    place_T: jax.Array
    """int32: its place in the tile."""


def list_tiles(meta: AttentionMeta, group: int) -> PrefillWork:
    """Cut the rows with several new tokens into tiles; `group` heads share a key/value head."""
    tokens, rows, per_tile = meta.rows_T.shape[0], meta.kv_lens.shape[0], TILE_ROWS // group
    several_R = jnp.where(meta.q_lens > 1, meta.q_lens, 0)
    row_W, number_W, starts = spread(-(-several_R // per_tile), tokens // per_tile + min(rows, tokens // 2))
    begin_W = meta.kv_lens[row_W] - meta.q_lens[row_W] + number_W * per_tile
    first_W = meta.cu_q_lens[row_W] + number_W * per_tile
    offset_T = jnp.arange(tokens, dtype=jnp.int32) - meta.cu_q_lens[meta.rows_T]
    return PrefillWork(
        tiles=jnp.stack([row_W, begin_W, jnp.minimum(begin_W + per_tile, meta.kv_lens[row_W])]),
        valid=starts[-1:],
        tokens_WQ=jnp.minimum(first_W[:, None] + jnp.arange(per_tile, dtype=jnp.int32), tokens - 1),
        tile_T=jnp.clip(starts[meta.rows_T] + offset_T // per_tile, 0, row_W.shape[0] - 1),
        place_T=offset_T % per_tile,
    )


def prefill(
    q_TNH: jax.Array,
    kv: jax.Array,
    page_table: jax.Array,
    first_page: jax.Array | int,
    work: PrefillWork,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Attention of the rows with several new tokens.

    Args:
        q_TNH: bfloat16 or float16.
        kv: [pages, page, 2K, H] of the same dtype, K and V interleaved.
        page_table: int32 [R, C], a ring of pages within the layer.
        first_page: the layer's page 0.
        work: of these tokens.
        scale, window, softcap, sinks_N: as `AttentionBackend.write_and_attend`.

    Returns:
        [T, N, H] in the dtype of q; anything for tokens of other rows.
    """
    tokens, heads, head_dim = q_TNH.shape
    kv_heads, (tiles, per_tile) = kv.shape[2] // 2, work.tokens_WQ.shape
    group = heads // kv_heads
    shape = TileShape(kv_heads, group, head_dim, kv.shape[1], page_table.shape[1], tiles, scale, window, softcap)
    base = jnp.asarray(first_page, jnp.int32).reshape(1)
    q_tiles, sinks = _tiled(q_TNH, shape, work), _sinks(shape, sinks_N)
    flat = kv.reshape(-1, 2 * kv_heads * head_dim)
    out = tile_kernel(shape, q_TNH.dtype)(work.tiles, work.valid, page_table, base, sinks, q_tiles, flat)
    o_KWMH = out.reshape(kv_heads, tiles, TILE_ROWS, head_dim)[:, :, : per_tile * group]
    o_WQKGH = o_KWMH.reshape(kv_heads, tiles, per_tile, group, head_dim).transpose(1, 2, 0, 3, 4)
    o_TNH: jax.Array = o_WQKGH[work.tile_T, work.place_T].reshape(tokens, heads, head_dim)
    return o_TNH


def _tiled(q_TNH: jax.Array, shape: TileShape, work: PrefillWork) -> jax.Array:
    """Queries in tiles [K * W * 128, H]."""
    q_WQKGH = q_TNH[work.tokens_WQ].reshape(*work.tokens_WQ.shape, shape.kv_heads, shape.group, shape.head_dim)
    q_KWMH = q_WQKGH.transpose(2, 0, 1, 3, 4).reshape(shape.kv_heads, shape.tiles, -1, shape.head_dim)
    spare = TILE_ROWS - q_KWMH.shape[2]
    return jnp.pad(q_KWMH, ((0, 0), (0, 0), (0, spare), (0, 0))).reshape(-1, shape.head_dim)


def _sinks(shape: TileShape, sinks_N: jax.Array | None) -> jax.Array:
    """Base-2 logits [K, 128] of a tile's query vectors; where there is no sink one that weighs nothing."""
    if sinks_N is None:
        return jnp.full((shape.kv_heads, TILE_ROWS), MASKED, jnp.float32)
    sinks_KG = sinks_N.astype(jnp.float32).reshape(shape.kv_heads, shape.group) * LOG2_E
    sinks_KM = jnp.tile(sinks_KG, (1, TILE_ROWS // shape.group))
    return jnp.pad(sinks_KM, ((0, 0), (0, TILE_ROWS - sinks_KM.shape[1])))
