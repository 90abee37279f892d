"""The second kernel of decoding: the splits of a query, added in their order (see `mosaic_decode.py`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxserve.models.kernels import mosaic_work
from jaxserve.models.kernels.mosaic_split import TILE_ROWS, SplitShape
from jaxserve.models.kernels.mosaic_work import compiler_params


def combine_kernel(shape: SplitShape, count: int, dtype: jnp.dtype) -> Any:
    """The kernel that adds the splits of `count` tokens in a fixed order."""
    return plgpu.kernel(
        partial(_combine_body, shape),
        out_type=jax.ShapeDtypeStruct((count, shape.kv_heads * shape.group, shape.head_dim), dtype),
        scratch_types=[plgpu.SMEM((TILE_ROWS, shape.head_dim), dtype)],
        grid=(shape.partial_rows // TILE_ROWS, count),
        grid_names=("tile", "x"),
        compiler_params=compiler_params(),
    )


def _combine_body(shape: SplitShape, starts: Any, parts: Any, weights: Any, sinks: Any, out: Any, tile: Any) -> None:
    """One thread block: 64 rows of results of one query, over its splits."""
    x, number = lax.axis_index("x"), lax.axis_index("tile")
    begin, end = starts[x], starts[x + 1]
    rows = pl.ds(number * TILE_ROWS, TILE_ROWS)
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

    empty = mosaic_work.filled((TILE_ROWS, shape.head_dim), 0.0, plgpu.Layout.WGMMA)
    acc, mass = lax.fori_loop(begin, end, add, (empty, jnp.exp2(sink - peak)))
    tile[...] = (acc / lax.broadcast_in_dim(mass, acc.shape, [0])).astype(tile.dtype)
    plgpu.commit_smem()
    padded = shape.padded_group
    for slot in range(TILE_ROWS // padded):
        head = number * (TILE_ROWS // padded) + slot

        @pl.when(head < shape.kv_heads)
        def _store(slot: int = slot, head: jax.Array = head) -> None:
            source = tile.at[pl.ds(slot * padded, shape.group)]
            plgpu.copy_smem_to_gmem(source, out.at[x, pl.ds(head * shape.group, shape.group)])

    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
