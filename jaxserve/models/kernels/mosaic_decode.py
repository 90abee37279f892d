"""Decode attention over paged keys and values on Hopper (Pallas Mosaic GPU): flash decoding with fixed splits.

Every query is a row of its own: one token with the group of heads that share a key/value head. A row's keys are cut at
multiples of `SPLIT`; a thread block takes one (row, split, key/value head) after the other, fetches pages into a ring
of shared memory and runs the online softmax in registers. A second kernel adds the splits of a row in their order. So
the bits of a row depend on its own keys only: not on the batch, nor on which block took which split.

What a split leaves is its normalised result, as the sum of two bfloat16 (17 bits, what the tile of the queries has
room for), and the base-2 logarithm of its weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxserve.models.kernels import mosaic_work
from jaxserve.models.kernels.mosaic_work import (
    LOG2_E,
    PROCESSORS,
    SHARED_BYTES,
    SPLIT,
    Tile,
    compiler_params,
    round_up,
    spread,
)

_TILE_ROWS = 64
"""Query vectors of a tile, the fewest that the matrix units take."""
_KEYS = 64
"""Keys per step of the online softmax."""
_SUBLANES = 8
"""Rows of a tile that copies move together; a group of heads is padded to a multiple."""
_MASKED = -1e30
_BLOCKS_PER_PROCESSOR = 2


class DecodeWork(NamedTuple):
    """Work list of X queries, each over the keys of some row of the page table; entry i is (query, split)."""

    entries: jax.Array
    """int32 [4, I]: query, number of its split from position 0, row of the page table, end of what the query sees."""
    starts: jax.Array
    """int32 [X + 1]: entries before each query; the last is the number of entries."""


@dataclass(frozen=True)
class _Shape:
    """Static sizes of the kernels."""

    kv_heads: int
    group: int
    head_dim: int
    page: int
    columns: int
    """Of the page table: a ring."""
    scale: float
    window: int | None
    softcap: float | None

    @property
    def padded_group(self) -> int:
        return round_up(self.group, _SUBLANES)

    @property
    def partial_rows(self) -> int:
        """Rows of a split's result, over all heads: whole tiles."""
        return round_up(self.kv_heads * self.padded_group, _TILE_ROWS)

    @property
    def stages(self) -> int:
        """Blocks of keys and values in flight."""
        queries = _TILE_ROWS * self.head_dim * 2
        block = _KEYS * self.head_dim * 4
        room = SHARED_BYTES * (1 if self.head_dim <= 128 else 2)
        return min(6, (room - queries - 2048) // block)

    @property
    def copy_rows(self) -> int:
        """Keys that one copy moves: a page, or a block of a longer page."""
        return min(self.page, _KEYS)


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
    shape = _Shape(kv_heads, heads // kv_heads, head_dim, kv.shape[1], page_table.shape[1], scale, window, softcap)
    q_XKMH = q_XNH.reshape(count, kv_heads, shape.group, head_dim)
    q_XKMH = jnp.pad(q_XKMH, ((0, 0), (0, 0), (0, shape.padded_group - shape.group), (0, 0)))
    base = jnp.asarray(first_page, jnp.int32).reshape(1)
    split, combine = (
        _split_kernel(shape, work.entries.shape[1], q_XNH.dtype),
        _combine_kernel(shape, count, q_XNH.dtype),
    )
    flat = kv.reshape(-1, 2 * kv_heads * head_dim)
    parts, weights = split(work.entries, work.starts[-1:], page_table, base, q_XKMH.reshape(-1, head_dim), flat)
    out_XNH: jax.Array = combine(work.starts, parts, weights, _sinks(shape, sinks_N))
    return out_XNH


def _sinks(shape: _Shape, sinks_N: jax.Array | None) -> jax.Array:
    """Base-2 logits [rows of a split's result]; where there is no sink one that weighs nothing."""
    sinks = jnp.full((shape.kv_heads, shape.padded_group), _MASKED, jnp.float32)
    if sinks_N is not None:
        sinks = sinks.at[:, : shape.group].set(sinks_N.astype(jnp.float32).reshape(shape.kv_heads, -1) * LOG2_E)
    return jnp.pad(sinks.reshape(-1), (0, shape.partial_rows - sinks.size))


def _split_kernel(shape: _Shape, entries: int, dtype: jnp.dtype) -> Any:
    head_dim = shape.head_dim
    return plgpu.kernel(
        partial(_split_body, shape),
        out_type=(
            jax.ShapeDtypeStruct((entries, 2, shape.partial_rows, head_dim), dtype),
            jax.ShapeDtypeStruct((entries, shape.partial_rows), jnp.float32),
        ),
        scratch_types=[
            plgpu.SMEM((_TILE_ROWS, head_dim), dtype, transforms=Tile(head_dim).transforms()),
            plgpu.SMEM((shape.stages, _KEYS, 2 * head_dim), dtype, transforms=Tile(head_dim).transforms()),
            plgpu.SMEM((_TILE_ROWS,), jnp.float32),
            plgpu.Barrier(),
            plgpu.Barrier(num_arrivals=_KEYS // shape.copy_rows, num_barriers=shape.stages),
        ],
        grid=(PROCESSORS * _BLOCKS_PER_PROCESSOR,),
        grid_names=("blocks",),
        compiler_params=compiler_params(),
    )


def _split_body(
    shape: _Shape,
    work: Any,
    valid: Any,
    table: Any,
    base: Any,
    q: Any,
    kv: Any,
    parts: Any,
    weights: Any,
    q_tile: Any,
    kv_ring: Any,
    weight_tile: Any,
    q_here: Any,
    kv_here: Any,
) -> None:
    """One thread block: entries (row, split, head) in turn."""
    blocks = PROCESSORS * _BLOCKS_PER_PROCESSOR
    mine = lax.axis_index("blocks")
    total = valid[0] * shape.kv_heads

    def entry(turn: jax.Array, _: None) -> None:
        index = mine + turn * blocks
        item, head = lax.div(index, shape.kv_heads), lax.rem(index, shape.kv_heads)
        x, split, row, end = work[0, item], work[1, item], work[2, item], work[3, item]
        rows = shape.padded_group
        plgpu.copy_gmem_to_smem(
            q.at[pl.ds((x * shape.kv_heads + head) * rows, rows)], q_tile.at[pl.ds(0, rows)], q_here
        )
        acc, peak, mass = _softmax(shape, split, row, end, head, table, base[0], kv, q_tile, kv_ring, q_here, kv_here)
        acc = acc / lax.broadcast_in_dim(mass, acc.shape, [0])
        weight_tile[...] = peak + jnp.log2(mass)
        target = pl.ds(head * rows, rows)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(weight_tile.at[pl.ds(0, rows)], weights.at[item, target])
        for place in range(2):
            rounded = acc.astype(q_tile.dtype)
            q_tile[...] = rounded
            acc = acc - rounded.astype(jnp.float32)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(q_tile.at[pl.ds(0, rows)], parts.at[item, place, target])
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)

    turns = lax.div(jnp.maximum(total - mine, 0) + blocks - 1, blocks)
    lax.fori_loop(0, turns, entry, None)


def _softmax(
    shape: _Shape,
    split: jax.Array,
    row: jax.Array,
    end: jax.Array,
    head: jax.Array,
    table: Any,
    base: jax.Array,
    kv: Any,
    q_tile: Any,
    kv_ring: Any,
    q_here: Any,
    kv_here: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The online softmax over a split: weighted values [64, H], maxima (base 2) and sums [64]."""
    size, width = _KEYS, 2 * shape.head_dim
    first = jnp.int32(0) if shape.window is None else jnp.maximum(end - shape.window, 0)
    begin = jnp.maximum(lax.div(first, size), split * (SPLIT // size))
    count = jnp.minimum(lax.div(end + size - 1, size), (split + 1) * (SPLIT // size)) - begin

    def fetch(number: jax.Array) -> None:
        slot = lax.rem(number, shape.stages)
        for piece in range(size // shape.copy_rows):
            position = (begin + number) * size + piece * shape.copy_rows
            column = lax.rem(lax.div(position, shape.page), shape.columns)
            token = (table[row, column] + base) * shape.page + lax.rem(position, shape.page)
            plgpu.copy_gmem_to_smem(
                kv.at[pl.ds(token, shape.copy_rows), pl.ds(head * width, width)],
                kv_ring.at[slot, pl.ds(piece * shape.copy_rows, shape.copy_rows)],
                kv_here.at[slot],
            )

    for number in range(shape.stages):
        pl.when(number < count)(partial(fetch, jnp.int32(number)))
    plgpu.barrier_wait(q_here)

    def step(number: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        slot = lax.rem(number, shape.stages)
        start = (begin + number) * size
        plgpu.barrier_wait(kv_here.at[slot])
        edge = start + size > end
        if shape.window is not None:
            edge |= start < first
        pl.when(edge)(partial(_clear_values, shape, kv_ring.at[slot], first - start, end - start))
        carry = _fold(shape, carry, q_tile, kv_ring.at[slot], first - start, end - start)
        pl.when(number + shape.stages < count)(partial(fetch, number + shape.stages))
        return carry

    rows = (_TILE_ROWS,)
    start = (
        mosaic_work.filled((*rows, shape.head_dim), 0.0, plgpu.Layout.WGMMA),
        mosaic_work.filled(rows, -jnp.inf, plgpu.Layout.WGMMA.reduce(1)),
        mosaic_work.filled(rows, 0.0, plgpu.Layout.WGMMA.reduce(1)),
    )
    acc, peak, mass = lax.fori_loop(0, count, step, start)
    return acc, peak, mass


def _clear_values(shape: _Shape, block: Any, first: jax.Array, end: jax.Array) -> None:
    """Zero values outside [first, end): pages may hold anything there, NaN too."""
    values = block.at[:, pl.ds(shape.head_dim, shape.head_dim)]
    where = mosaic_work.iota((_KEYS, shape.head_dim), 0)
    held = mosaic_work.load(values, plgpu.Layout.WGMMA)
    values[...] = jnp.where((where >= first) & (where < end), held, jnp.zeros_like(held))
    plgpu.commit_smem()


def _fold(
    shape: _Shape, carry: tuple[jax.Array, ...], q_tile: Any, block: Any, first: jax.Array, end: jax.Array
) -> tuple[jax.Array, ...]:
    """One block of keys and values into the running state; positions count from the block's first."""
    acc, peak, mass = carry
    keys, values = (block.at[:, pl.ds(side * shape.head_dim, shape.head_dim)] for side in range(2))

    scores = mosaic_work.products(q_tile, keys)
    if shape.softcap is None:
        scores = scores * (shape.scale * LOG2_E)
    else:
        scores = jnp.tanh(scores * (shape.scale / shape.softcap)) * (shape.softcap * LOG2_E)
    where = mosaic_work.iota(scores.shape, 1)
    seen = where < end
    if shape.window is not None:
        seen &= where >= first
    scores = jnp.where(seen, scores, _MASKED)
    highest = jnp.maximum(peak, scores.max(axis=1))
    decay = jnp.exp2(peak - highest)
    likely = jnp.exp2(scores - lax.broadcast_in_dim(highest, scores.shape, [0]))
    mass = mass * decay + likely.sum(axis=1)
    acc = acc * lax.broadcast_in_dim(decay, acc.shape, [0])
    return mosaic_work.accumulate(acc, likely.astype(q_tile.dtype), values), highest, mass


def _combine_kernel(shape: _Shape, count: int, dtype: jnp.dtype) -> Any:
    return plgpu.kernel(
        partial(_combine_body, shape),
        out_type=jax.ShapeDtypeStruct((count, shape.kv_heads * shape.group, shape.head_dim), dtype),
        scratch_types=[plgpu.SMEM((_TILE_ROWS, shape.head_dim), dtype)],
        grid=(shape.partial_rows // _TILE_ROWS, count),
        grid_names=("tile", "x"),
        compiler_params=compiler_params(),
    )


def _combine_body(shape: _Shape, starts: Any, parts: Any, weights: Any, sinks: Any, out: Any, tile: Any) -> None:
    """One thread block: 64 rows of results of one query, over its splits."""
    x, number = lax.axis_index("x"), lax.axis_index("tile")
    begin, end = starts[x], starts[x + 1]
    rows = pl.ds(number * _TILE_ROWS, _TILE_ROWS)
    per_row = plgpu.Layout.WGMMA.reduce(1)
    sink = mosaic_work.load(sinks.at[rows], per_row)

    def weight(item: jax.Array) -> jax.Array:
        return mosaic_work.load(weights.at[item, rows], per_row)

    peak = lax.fori_loop(begin, end, lambda item, peak: jnp.maximum(peak, weight(item)), sink)

    def add(item: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        acc, mass = carry
        share = jnp.exp2(weight(item) - peak)
        high, low = (
            mosaic_work.load(parts.at[item, side, rows], plgpu.Layout.WGMMA).astype(jnp.float32) for side in range(2)
        )
        return acc + (high + low) * lax.broadcast_in_dim(share, acc.shape, [0]), mass + share

    empty = mosaic_work.filled((_TILE_ROWS, shape.head_dim), 0.0, plgpu.Layout.WGMMA)
    acc, mass = lax.fori_loop(begin, end, add, (empty, jnp.exp2(sink - peak)))
    tile[...] = (acc / lax.broadcast_in_dim(mass, acc.shape, [0])).astype(tile.dtype)
    plgpu.commit_smem()
    padded = shape.padded_group
    for slot in range(_TILE_ROWS // padded):
        head = number * (_TILE_ROWS // padded) + slot

        @pl.when(head < shape.kv_heads)
        def _store(slot: int = slot, head: jax.Array = head) -> None:
            source = tile.at[pl.ds(slot * padded, shape.group)]
            plgpu.copy_smem_to_gmem(source, out.at[x, pl.ds(head * shape.group, shape.group)])

    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
