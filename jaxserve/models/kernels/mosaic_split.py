"""The first kernel of decoding: the online softmax over each split of each query (see `mosaic_decode.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxserve.models.kernels import mosaic_softmax, mosaic_work
from jaxserve.models.kernels.mosaic_work import (
    PROCESSORS,
    SHARED_BYTES,
    SPLIT,
    Tile,
    compiler_params,
    round_up,
)

TILE_ROWS = 64
"""Query vectors of a tile, the fewest that the matrix units take."""
_KEYS = 64
"""Keys per step of the online softmax."""
_SUBLANES = 8
"""Rows of a tile that copies move together; a group of heads is padded to a multiple."""
_BLOCKS_PER_PROCESSOR = 2


@dataclass(frozen=True)
class SplitShape:
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
        """Query heads of a KV head, rounded up to what a tile holds."""
        return round_up(self.group, _SUBLANES)

    @property
    def partial_rows(self) -> int:
        """Rows of a split's result, over all heads: whole tiles."""
        return round_up(self.kv_heads * self.padded_group, TILE_ROWS)

    @property
    def stages(self) -> int:
        """Blocks of keys and values in flight."""
        queries = TILE_ROWS * self.head_dim * 2
        block = _KEYS * self.head_dim * 4
        room = SHARED_BYTES * (1 if self.head_dim <= 128 else 2)
        return min(6, (room - queries - 2048) // block)

    @property
    def copy_rows(self) -> int:
        """Keys that one copy moves: a page, or a block of a longer page."""
        return min(self.page, _KEYS)


def split_kernel(shape: SplitShape, entries: int, dtype: jnp.dtype) -> Any:
    """The kernel that attends to one split of 512 keys for each of `entries` entries of the work list."""
    head_dim = shape.head_dim
    return plgpu.kernel(
        partial(_split_body, shape),
        out_type=(
            jax.ShapeDtypeStruct((entries, 2, shape.partial_rows, head_dim), dtype),
            jax.ShapeDtypeStruct((entries, shape.partial_rows), jnp.float32),
        ),
        scratch_types=[
            plgpu.SMEM((TILE_ROWS, head_dim), dtype, transforms=Tile(head_dim).transforms()),
            plgpu.SMEM((shape.stages, _KEYS, 2 * head_dim), dtype, transforms=Tile(head_dim).transforms()),
            plgpu.SMEM((TILE_ROWS,), jnp.float32),
            plgpu.Barrier(),
            plgpu.Barrier(num_arrivals=_KEYS // shape.copy_rows, num_barriers=shape.stages),
        ],
        grid=(PROCESSORS * _BLOCKS_PER_PROCESSOR,),
        grid_names=("blocks",),
        compiler_params=compiler_params(),
    )


def _split_body(
    shape: SplitShape,
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
    shape: SplitShape,
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
        low, high = first - start, end - start
        kept = partial(_between, low, high)
        pl.when(edge)(partial(mosaic_softmax.clear_values, shape, kv_ring.at[slot], size, kept))
        seen = partial(_seen, low if shape.window is not None else None, high)
        carry = mosaic_softmax.fold(shape, carry, q_tile, kv_ring.at[slot], seen)
        pl.when(number + shape.stages < count)(partial(fetch, number + shape.stages))
        return carry

    rows = (TILE_ROWS,)
    start = (
        mosaic_work.filled((*rows, shape.head_dim), 0.0, plgpu.Layout.WGMMA),
        mosaic_work.filled(rows, -jnp.inf, plgpu.Layout.WGMMA.reduce(1)),
        mosaic_work.filled(rows, 0.0, plgpu.Layout.WGMMA.reduce(1)),
    )
    acc, peak, mass = lax.fori_loop(0, count, step, start)
    return acc, peak, mass


def _between(first: jax.Array, end: jax.Array, where: jax.Array) -> jax.Array:
    return (where >= first) & (where < end)


def _seen(first: jax.Array | None, end: jax.Array, scores_shape: tuple[int, ...]) -> jax.Array:
    """Which keys of a block the queries see: those in [first, end); None = from the first."""
    where = mosaic_work.iota(scores_shape, 1)
    return where < end if first is None else _between(first, end, where)
