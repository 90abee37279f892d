"""Work lists of the TPU attention kernels, made inside the program, once for each step and page group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxserve.models.kernels.attention_backend import AttentionShape
from jaxserve.models.kernels.work_list import spread
from jaxserve.models.metadata import AttentionMeta

LANES = 128
TILE = 16
"""Positions that are written together: rows of a tile of 16-bit numbers."""
_BLOCK_BYTES = 1 << 20
"""Keys and values of one step of the online softmax: long enough to hide what a step costs besides."""
_FEWEST_KEYS, _MOST_KEYS = 128, 1024
_QUERY_ROWS = 512
"""Query vectors of a key/value head and prefill item at most."""
_MOST_QUERIES = 128


@dataclass(frozen=True)
class Lanes:
    """Where a cached row of `width` numbers has its key and its value. Whole registers of 128 lanes."""

    width: int
    key: int
    """The key is lanes 0 .. key - 1; queries are zero where a key has other things."""
    value_from: int
    value: int
    """Lanes of the value, with what lies beside it."""

    @classmethod
    def of_heads(cls, head_dim: int) -> Lanes:
        """Key and value side by side: heads of 64 and less in one register, others in registers of their own."""
        if head_dim <= LANES // 2:
            return cls(LANES, LANES, 0, LANES)
        padded = _up(head_dim, LANES)
        return cls(2 * padded, padded, padded, padded)

    @classmethod
    def of_latents(cls, head_dim: int, value_dim: int) -> Lanes:
        """The value is the beginning of the key."""
        padded = _up(head_dim, LANES)
        return cls(padded, padded, 0, _up(value_dim, LANES))

    def value_offset(self, head_dim: int) -> int:
        """Lane of a cached row where the value begins."""
        return LANES // 2 if self.width == LANES and self.key == self.width and head_dim <= LANES // 2 else self.key


def _up(number: int, multiple: int) -> int:
    return number + -number % multiple


class Tiles(NamedTuple):
    """Tiles of 16 positions that receive new tokens, the first of W."""

    valid: jax.Array
    """int32 [1]: how many of W."""
    pages_W: jax.Array
    """Page within a layer."""
    offsets_W: jax.Array
    """First position of the tile within its page."""
    tokens_W: jax.Array
    """First packed token that goes there."""
    begins_W: jax.Array
    """Its place in the tile."""
    lengths_W: jax.Array
    """Tokens that go there."""


class Tasks(NamedTuple):
    """Rows that decode, then items of prefill."""

    counts: jax.Array
    """int32 [2]: rows that decode, and all tasks."""
    rows_W: jax.Array
    first_W: jax.Array
    """Position of the first query."""
    lengths_W: jax.Array
    """Queries."""
    tokens_W: jax.Array
    """Packed token of the first query."""
    decodes_T: jax.Array
    """Whether the token is its row's only new one."""


class TpuWork(NamedTuple):
    """What the layers of a page group share of a step."""

    tiles: Tiles
    tasks: Tasks


def key_block(kv_heads: int, lanes: Lanes) -> int:
    """Keys per step of the online softmax: a power of two that depends on the model only, so that bits do."""
    keys = _MOST_KEYS
    while keys > _FEWEST_KEYS and keys * kv_heads * lanes.width * 2 > _BLOCK_BYTES:
        keys //= 2
    return keys


def query_block(shape: AttentionShape, tokens: int) -> int:
    """Queries per item of prefill: fewer in small buckets, where one item is moved for nothing when all rows decode."""
    group, block = shape.heads // shape.kv_heads, _MOST_QUERIES
    while block > 8 and (block * group > _QUERY_ROWS or block * 4 > tokens):
        block //= 2
    return block


def list_tiles(meta: AttentionMeta) -> Tiles:
    """Cut each row's new positions at multiples of `TILE`."""
    tokens, rows = meta.rows_T.shape[0], meta.kv_lens.shape[0]
    starts_R = meta.kv_lens - meta.q_lens
    first_R = starts_R // TILE
    tiles_R = jnp.where(meta.q_lens > 0, (meta.kv_lens - 1) // TILE - first_R + 1, 0)
    row_W, number_W, ends = spread(tiles_R, min(tokens, tokens // TILE + 2 * min(rows, tokens)))
    tile_W = first_R[row_W] + number_W
    begin_W = jnp.maximum(starts_R[row_W], tile_W * TILE)
    end_W = jnp.minimum(meta.kv_lens[row_W], (tile_W + 1) * TILE)
    page_W = tile_W * TILE // meta.page_size
    return Tiles(
        ends[-1:],
        meta.page_table[row_W, page_W % meta.page_table.shape[1]],
        tile_W * TILE % meta.page_size,
        meta.cu_q_lens[row_W] + begin_W - starts_R[row_W],
        begin_W % TILE,
        end_W - begin_W,
    )


def list_tasks(meta: AttentionMeta, block: int) -> Tasks:
    """The rows with one new token, then the others' in items of at most `block` queries."""
    tokens, rows = meta.rows_T.shape[0], meta.kv_lens.shape[0]
    starts_R = meta.kv_lens - meta.q_lens
    single_R = meta.q_lens == 1
    row_D = jnp.argsort(~single_R, stable=True).astype(jnp.int32)
    decoding = jnp.sum(single_R, dtype=jnp.int32)
    items_R = jnp.where(meta.q_lens > 1, (meta.q_lens + block - 1) // block, 0)
    row_I, number_I, item_starts = spread(items_R, tokens // block + min(rows, tokens // 2))
    first_I = number_I * block
    length_I = jnp.minimum(block, meta.q_lens[row_I] - first_I)
    index_W = jnp.arange(rows + row_I.shape[0], dtype=jnp.int32)
    item_W = jnp.clip(index_W - decoding, 0, row_I.shape[0] - 1)
    early_W = index_W < decoding
    row_W = jnp.where(early_W, row_D[jnp.minimum(index_W, rows - 1)], row_I[item_W])
    before_W = jnp.where(early_W, 0, first_I[item_W])
    return Tasks(
        jnp.stack([decoding, decoding + item_starts[-1]]),
        row_W,
        starts_R[row_W] + before_W,
        jnp.where(early_W, 1, length_I[item_W]),
        meta.cu_q_lens[row_W] + before_W,
        single_R[meta.rows_T] & meta.valid_T,
    )
