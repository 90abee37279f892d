"""Prefill attention over paged keys and values on Hopper (Pallas Mosaic GPU); FlashAttention-3 (Shah et al. 2024).

A tile is 128 query vectors of one key/value head: some tokens of a row, each with its group of heads. Two warpgroups
hold 64 of them each; a third fetches pages into a ring of shared memory. XLA puts queries into whole tiles before and
takes results out after, since rows begin at any token. Query vectors are rows of a matrix product, blocks of keys are
aligned at position 0: a token's bits do not depend on the tile it falls into.
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
from jaxserve.models.kernels.mosaic_work import LOG2_E, PROCESSORS, Tile, compiler_params, spread
from jaxserve.models.metadata import AttentionMeta

_HALF = 64
"""Query vectors of a warpgroup."""
_TILE_ROWS = 2 * _HALF
_MASKED = -1e30
_SHARED_BYTES = 224 << 10
"""Shared memory of the one thread block on a multiprocessor."""


class PrefillWork(NamedTuple):
    """Tiles of the rows with several new tokens, W at most, and where tokens are in them; Q tokens are in a tile."""

    tiles: jax.Array
    """int32 [3, W]: row, position of the first token, end of the positions of its tokens."""
    count: jax.Array
    """int32 [1]: valid tiles."""
    tokens_WQ: jax.Array
    """int32: token of each place."""
    tile_T: jax.Array
    """int32: tile of each token (anything for tokens of other rows)."""
    place_T: jax.Array
    """int32: its place in the tile."""


@dataclass(frozen=True)
class _Shape:
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
        queries = _TILE_ROWS * self.head_dim * 2
        return min(4, (_SHARED_BYTES - queries - 2048) // (self.block * self.head_dim * 4))

    @property
    def copy_rows(self) -> int:
        """Keys that one copy moves: a page, or a block of a longer page."""
        return min(self.page, self.block)


def list_tiles(meta: AttentionMeta, group: int) -> PrefillWork:
    """Cut the rows with several new tokens into tiles; `group` heads share a key/value head."""
    tokens, rows, per_tile = meta.rows_T.shape[0], meta.kv_lens.shape[0], _TILE_ROWS // group
    several_R = jnp.where(meta.q_lens > 1, meta.q_lens, 0)
    row_W, number_W, starts = spread(-(-several_R // per_tile), tokens // per_tile + min(rows, tokens // 2))
    begin_W = meta.kv_lens[row_W] - meta.q_lens[row_W] + number_W * per_tile
    first_W = meta.cu_q_lens[row_W] + number_W * per_tile
    offset_T = jnp.arange(tokens, dtype=jnp.int32) - meta.cu_q_lens[meta.rows_T]
    return PrefillWork(
        tiles=jnp.stack([row_W, begin_W, jnp.minimum(begin_W + per_tile, meta.kv_lens[row_W])]),
        count=starts[-1:],
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
    shape = _Shape(kv_heads, group, head_dim, kv.shape[1], page_table.shape[1], tiles, scale, window, softcap)
    base = jnp.asarray(first_page, jnp.int32).reshape(1)
    q_tiles, sinks = _tiled(q_TNH, shape, work), _sinks(shape, sinks_N)
    flat = kv.reshape(-1, 2 * kv_heads * head_dim)
    out = _kernel(shape, q_TNH.dtype)(work.tiles, work.count, page_table, base, sinks, q_tiles, flat)
    o_KWMH = out.reshape(kv_heads, tiles, _TILE_ROWS, head_dim)[:, :, : per_tile * group]
    o_WQKGH = o_KWMH.reshape(kv_heads, tiles, per_tile, group, head_dim).transpose(1, 2, 0, 3, 4)
    o_TNH: jax.Array = o_WQKGH[work.tile_T, work.place_T].reshape(tokens, heads, head_dim)
    return o_TNH


def _tiled(q_TNH: jax.Array, shape: _Shape, work: PrefillWork) -> jax.Array:
    """Queries in tiles [K * W * 128, H]."""
    q_WQKGH = q_TNH[work.tokens_WQ].reshape(*work.tokens_WQ.shape, shape.kv_heads, shape.group, shape.head_dim)
    q_KWMH = q_WQKGH.transpose(2, 0, 1, 3, 4).reshape(shape.kv_heads, shape.tiles, -1, shape.head_dim)
    spare = _TILE_ROWS - q_KWMH.shape[2]
    return jnp.pad(q_KWMH, ((0, 0), (0, 0), (0, spare), (0, 0))).reshape(-1, shape.head_dim)


def _sinks(shape: _Shape, sinks_N: jax.Array | None) -> jax.Array:
    """Base-2 logits [K, 128] of a tile's query vectors; where there is no sink one that weighs nothing."""
    if sinks_N is None:
        return jnp.full((shape.kv_heads, _TILE_ROWS), _MASKED, jnp.float32)
    sinks_KG = sinks_N.astype(jnp.float32).reshape(shape.kv_heads, shape.group) * LOG2_E
    sinks_KM = jnp.tile(sinks_KG, (1, _TILE_ROWS // shape.group))
    return jnp.pad(sinks_KM, ((0, 0), (0, _TILE_ROWS - sinks_KM.shape[1])))


def _kernel(shape: _Shape, dtype: jnp.dtype) -> Any:
    head_dim, transforms = shape.head_dim, Tile(shape.head_dim).transforms()
    arrivals = shape.block // shape.copy_rows
    return plgpu.kernel(
        partial(_body, shape),
        out_type=jax.ShapeDtypeStruct((shape.kv_heads * shape.tiles * _TILE_ROWS, head_dim), dtype),
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


def _entry(shape: _Shape, index: jax.Array, work: Any) -> _Entry:
    item, head = lax.div(index, shape.kv_heads), lax.rem(index, shape.kv_heads)
    begin, end = work[1, item], work[2, item]
    first = jnp.int32(0) if shape.window is None else jnp.maximum(begin - shape.window + 1, 0)
    first_block = lax.div(first, shape.block)
    blocks = lax.div(end + shape.block - 1, shape.block) - first_block
    return _Entry(head * shape.tiles + item, head, work[0, item], begin, end, first_block, blocks)


def _body(
    shape: _Shape,
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
    shape: _Shape,
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
    shape: _Shape,
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
            pl.when(start + shape.block > tile.end)(partial(_clear_values, shape, block, tile.end - start))
        seen = partial(_seen, shape, tile.begin - start, warpgroup) if masked else None
        carry = _fold(shape, carry, q_tile, block, seen)
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


def _seen(shape: _Shape, begin: jax.Array, warpgroup: jax.Array, scores_shape: tuple[int, int]) -> jax.Array:
    """Which keys of a block each query sees; `begin` is the tile's first position, counted from the block's."""
    vector = mosaic_work.iota(scores_shape, 0) + warpgroup * _HALF
    key = mosaic_work.iota(scores_shape, 1)
    position = lax.div(vector, jnp.full_like(vector, shape.group)) + begin
    seen = key <= position
    return seen if shape.window is None else seen & (key > position - shape.window)


def _clear_values(shape: _Shape, block: Any, end: jax.Array) -> None:
    """Zero values from `end` on: pages may hold anything there, NaN too. Both warpgroups write the same."""
    values = block.at[:, pl.ds(shape.head_dim, shape.head_dim)]
    where = mosaic_work.iota((shape.block, shape.head_dim), 0)
    held = mosaic_work.load(values, plgpu.Layout.WGMMA)
    values[...] = jnp.where(where < end, held, jnp.zeros_like(held))
    plgpu.commit_smem()


def _fold(shape: _Shape, carry: tuple[jax.Array, ...], q_tile: Any, block: Any, seen: Any) -> tuple[jax.Array, ...]:
    """One block of keys and values into the running state."""
    acc, peak, mass = carry
    keys, values = (block.at[:, pl.ds(side * shape.head_dim, shape.head_dim)] for side in range(2))
    scores = mosaic_work.products(q_tile, keys)
    if shape.softcap is None:
        scores = scores * (shape.scale * LOG2_E)
    else:
        scores = jnp.tanh(scores * (shape.scale / shape.softcap)) * (shape.softcap * LOG2_E)
    if seen is not None:
        scores = jnp.where(seen(scores.shape), scores, _MASKED)
    highest = jnp.maximum(peak, scores.max(axis=1))
    decay = jnp.exp2(peak - highest)
    likely = jnp.exp2(scores - lax.broadcast_in_dim(highest, scores.shape, [0]))
    mass = mass * decay + likely.sum(axis=1)
    acc = acc * lax.broadcast_in_dim(decay, acc.shape, [0])
    return mosaic_work.accumulate(acc, likely.astype(q_tile.dtype), values), highest, mass
