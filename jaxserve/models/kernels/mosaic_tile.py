"""The kernel of prefill: the online softmax of each tile of queries (see `mosaic_prefill.py`)."""

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
from jaxserve.models.kernels.mosaic_work import PROCESSORS, Tile, compiler_params

_HALF = 64
"""Query vectors of a warpgroup."""
TILE_ROWS = 2 * _HALF
_SHARED_BYTES = 224 << 10
"""Shared memory of the one thread block on a multiprocessor."""


@dataclass(frozen=True)
class TileShape:
    """Static sizes of the kernel."""

    kv_heads: int
    group: int
    head_dim: int
    page: int
    columns: int
    tiles: int
    """Most tiles of a step, for each key/value head."""
    scale: float
    window: int | None
    softcap: float | None

    @property
    def block(self) -> int:
        """Keys per step of the online softmax."""
        return 128 if self.head_dim <= 128 else 64

    @property
    def stages(self) -> int:
        """Blocks of keys and values in flight."""
        queries = TILE_ROWS * self.head_dim * 2
        return min(4, (_SHARED_BYTES - queries - 2048) // (self.block * self.head_dim * 4))

    @property
    def copy_rows(self) -> int:
        """Keys that one copy moves: a page, or a block of a longer page."""
        return min(self.page, self.block)


def tile_kernel(shape: TileShape, dtype: jnp.dtype) -> Any:
    """The prefill kernel for tiles of this shape."""
    head_dim, transforms = shape.head_dim, Tile(shape.head_dim).transforms()
    arrivals = shape.block // shape.copy_rows
    return plgpu.kernel(
        partial(_body, shape),
        out_type=jax.ShapeDtypeStruct((shape.kv_heads * shape.tiles * TILE_ROWS, head_dim), dtype),
        scratch_types=[
            plgpu.SMEM((2, _HALF, head_dim), dtype, transforms=transforms),
            plgpu.SMEM((shape.stages, shape.block, 2 * head_dim), dtype, transforms=transforms),
            plgpu.Barrier(num_barriers=2),
            plgpu.Barrier(num_arrivals=arrivals, num_barriers=shape.stages),
            plgpu.Barrier(num_arrivals=2, num_barriers=shape.stages),
        ],
        grid=(PROCESSORS,),
        grid_names=("blocks",),
        num_threads=3,
        thread_name="warpgroup",
        compiler_params=compiler_params(),
    )


@dataclass(frozen=True)
class _Entry:
    """One tile: where its row is and which blocks of keys it needs."""

    place: jax.Array
    """Tile of the flat list over key/value heads."""
    head: jax.Array
    row: jax.Array
    begin: jax.Array
    """Position of its first token."""
    end: jax.Array
    """One beyond the position of its last token."""
    first_block: jax.Array
    blocks: jax.Array


def _entry(shape: TileShape, index: jax.Array, work: Any) -> _Entry:
    item, head = lax.div(index, shape.kv_heads), lax.rem(index, shape.kv_heads)
    begin, end = work[1, item], work[2, item]
    first = jnp.int32(0) if shape.window is None else jnp.maximum(begin - shape.window + 1, 0)
    first_block = lax.div(first, shape.block)
    blocks = lax.div(end + shape.block - 1, shape.block) - first_block
    return _Entry(head * shape.tiles + item, head, work[0, item], begin, end, first_block, blocks)


def _body(
    shape: TileShape,
    work: Any,
    valid: Any,
    table: Any,
    base: Any,
    sinks: Any,
    q: Any,
    kv: Any,
    out: Any,
    q_tiles: Any,
    kv_ring: Any,
    q_here: Any,
    kv_here: Any,
    kv_used: Any,
) -> None:
    """One thread block: tiles in turn, each by two computing warpgroups and one that fetches."""
    mine, warpgroup = lax.axis_index("blocks"), lax.axis_index("warpgroup")
    total = valid[0] * shape.kv_heads
    turns = lax.div(jnp.maximum(total - mine, 0) + PROCESSORS - 1, PROCESSORS)

    @pl.when(warpgroup == 2)
    def _fetch() -> None:
        plgpu.set_max_registers(40, action="decrease")

        def entry(turn: jax.Array, fetched: jax.Array) -> jax.Array:
            tile = _entry(shape, mine + turn * PROCESSORS, work)
            step = partial(_fetch_block, shape, tile, fetched, table, base[0], kv, kv_ring, kv_here, kv_used)
            lax.fori_loop(0, tile.blocks, lambda number, _: step(number), None)
            return fetched + tile.blocks

        fetched = lax.fori_loop(0, turns, entry, jnp.int32(0))
        for slot in range(shape.stages):  # nothing may be on its way to a barrier that is gone
            pl.when(slot < fetched)(partial(plgpu.barrier_wait, kv_used.at[slot]))

    @pl.when(warpgroup < 2)
    def _compute() -> None:
        plgpu.set_max_registers(232, action="increase")
        q_tile, half = q_tiles.at[warpgroup], q_here.at[warpgroup]

        def entry(turn: jax.Array, used: jax.Array) -> jax.Array:
            tile = _entry(shape, mine + turn * PROCESSORS, work)
            rows = pl.ds((tile.place * 2 + warpgroup) * _HALF, _HALF)
            plgpu.copy_gmem_to_smem(q.at[rows], q_tile, half)
            sink = mosaic_work.load(sinks.at[tile.head, pl.ds(warpgroup * _HALF, _HALF)], plgpu.Layout.WGMMA.reduce(1))
            plgpu.barrier_wait(half)
            acc, mass = _softmax(shape, tile, warpgroup, used, sink, q_tile, kv_ring, kv_here, kv_used)
            q_tile[...] = (acc / lax.broadcast_in_dim(mass, acc.shape, [0])).astype(q_tile.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(q_tile, out.at[rows])
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            return used + tile.blocks

        lax.fori_loop(0, turns, entry, jnp.int32(0))


def _fetch_block(
    shape: TileShape,
    tile: _Entry,
    fetched: jax.Array,
    table: Any,
    base: jax.Array,
    kv: Any,
    kv_ring: Any,
    kv_here: Any,
    kv_used: Any,
    number: jax.Array,
) -> None:
    """One block of keys and values into the ring, once both warpgroups are done with what was there."""
    width, count = 2 * shape.head_dim, fetched + number
    slot = lax.rem(count, shape.stages)

    @pl.when(count >= shape.stages)
    def _wait() -> None:
        plgpu.barrier_wait(kv_used.at[slot])

    for piece in range(shape.block // shape.copy_rows):
        position = (tile.first_block + number) * shape.block + piece * shape.copy_rows
        column = lax.rem(lax.div(position, shape.page), shape.columns)
        token = (table[tile.row, column] + base) * shape.page + lax.rem(position, shape.page)
        plgpu.copy_gmem_to_smem(
            kv.at[pl.ds(token, shape.copy_rows), pl.ds(tile.head * width, width)],
            kv_ring.at[slot, pl.ds(piece * shape.copy_rows, shape.copy_rows)],
            kv_here.at[slot],
        )


def _softmax(
    shape: TileShape,
    tile: _Entry,
    warpgroup: jax.Array,
    used: jax.Array,
    sink: jax.Array,
    q_tile: Any,
    kv_ring: Any,
    kv_here: Any,
    kv_used: Any,
) -> tuple[jax.Array, jax.Array]:
    """The online softmax of one warpgroup's queries: weighted values [64, H] and sums [64].

    A query that sees nothing of the first blocks gathers weights of 1 there, which the first key that it sees scales
    to zero; so does the place holder of an absent sink.
    """

    def step(number: jax.Array, carry: tuple[jax.Array, ...], *, masked: bool) -> tuple[jax.Array, ...]:
        slot = lax.rem(used + number, shape.stages)
        start = (tile.first_block + number) * shape.block
        plgpu.barrier_wait(kv_here.at[slot])
        block = kv_ring.at[slot]
        if masked:
            written = partial(_before, tile.end - start)
            clear = partial(mosaic_softmax.clear_values, shape, block, shape.block, written)  # both warpgroups alike
            pl.when(start + shape.block > tile.end)(clear)
        seen = partial(_seen, shape, tile.begin - start, warpgroup) if masked else None
        carry = mosaic_softmax.fold(shape, carry, q_tile, block, seen)
        plgpu.barrier_arrive(kv_used.at[slot])
        return carry

    low = jnp.int32(0)
    if shape.window is not None:
        visible_to_all = lax.div(jnp.maximum(tile.end - shape.window, 0) + shape.block - 1, shape.block)
        low = jnp.clip(visible_to_all - tile.first_block, 0, tile.blocks)
    high = jnp.clip(lax.div(tile.begin + 1, shape.block) - tile.first_block, low, tile.blocks)
    carry = (
        mosaic_work.filled((_HALF, shape.head_dim), 0.0, plgpu.Layout.WGMMA),
        sink,
        mosaic_work.filled((_HALF,), 1.0, plgpu.Layout.WGMMA.reduce(1)),
    )
    if shape.window is not None:
        carry = lax.fori_loop(0, low, partial(step, masked=True), carry)
    carry = lax.fori_loop(low, high, partial(step, masked=False), carry)
    acc, _, mass = lax.fori_loop(high, tile.blocks, partial(step, masked=True), carry)
    return acc, mass


def _seen(shape: TileShape, begin: jax.Array, warpgroup: jax.Array, scores_shape: tuple[int, ...]) -> jax.Array:
    """Which keys of a block each query sees; `begin` is the tile's first position, counted from the block's."""
    vector = mosaic_work.iota(scores_shape, 0) + warpgroup * _HALF
    key = mosaic_work.iota(scores_shape, 1)
    position = lax.div(vector, jnp.full_like(vector, shape.group)) + begin
    seen = key <= position
    return seen if shape.window is None else seen & (key > position - shape.window)


def _before(end: jax.Array, where: jax.Array) -> jax.Array:
    return where < end
