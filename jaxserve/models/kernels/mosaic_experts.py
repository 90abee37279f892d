"""Grouped matrix products on Hopper (Pallas Mosaic GPU): blocks of rows, each times the matrix of its own expert.

The weights are the left operand, whose tile has 64 rows at least; the rows of tokens, 8 or more, are the right one. So
a block of 8 rows reads a matrix once and wastes nothing, and results come out turned over. A thread block takes one
(block of rows, tile of outputs) after the other and streams the inner dimension through a ring of shared memory, in one
order: a row's bits depend neither on its neighbours nor on their number. Experts without tokens are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxserve.models.kernels import mosaic_work
from jaxserve.models.kernels.mosaic_work import PROCESSORS, SHARED_BYTES, Tile, compiler_params

FEWEST_ROWS, MOST_ROWS = 8, 128
"""Bounds of the rows per block."""
_STEP = 64
"""Divides both dimensions of a matrix."""
_BLOCKS_PER_PROCESSOR = 2


@dataclass(frozen=True)
class _Shape:
    """Static sizes of the kernel."""

    blocks: int
    rows: int
    inputs: int
    outputs: int
    out_bytes: int

    @property
    def tile(self) -> int:
        """Outputs of a tile."""
        return _STEP if self.outputs % (2 * _STEP) else 2 * _STEP

    @property
    def depth(self) -> int:
        """Inputs of a step."""
        return _STEP if self.inputs % (2 * _STEP) else 2 * _STEP

    @property
    def stages(self) -> int:
        """Steps in flight."""
        spare = SHARED_BYTES - self.tile * self.rows * self.out_bytes - 2048
        fitting = max(2, spare // ((self.tile + self.rows) * self.depth * 2))
        return min(8, fitting, self.inputs // self.depth)


def supports(inputs: int, outputs: int, dtype: jnp.dtype) -> bool:
    """Whether the kernel takes matrices [outputs, inputs] of this type."""
    return inputs % _STEP == 0 and outputs % _STEP == 0 and dtype in (jnp.bfloat16, jnp.float16)


def grouped_product(
    x_WRI: jax.Array, weight_EOI: jax.Array, experts_W: jax.Array, count: jax.Array, dtype: jnp.dtype
) -> jax.Array:
    """Each block of rows times the transposed matrix of its expert.

    Args:
        x_WRI: W blocks of R rows, R a multiple of 8.
        weight_EOI: matrices of the same dtype.
        experts_W: int32, in [0, E).
        count: int32 [1], valid blocks, the first of W.
        dtype: of the result.

    Returns:
        [W, O, R]; anything in blocks that are not valid.
    """
    (blocks, rows, inputs), (count_E, outputs, _) = x_WRI.shape, weight_EOI.shape
    shape = _Shape(blocks, rows, inputs, outputs, jnp.dtype(dtype).itemsize)
    transforms = Tile(shape.depth).transforms()
    kernel = plgpu.kernel(
        partial(_body, shape),
        out_type=jax.ShapeDtypeStruct((blocks, outputs, rows), dtype),
        scratch_types=[
            plgpu.SMEM((shape.stages, shape.tile, shape.depth), weight_EOI.dtype, transforms=transforms),
            plgpu.SMEM((shape.stages, rows, shape.depth), x_WRI.dtype, transforms=transforms),
            plgpu.SMEM((shape.tile, rows), dtype),
            plgpu.Barrier(num_arrivals=2, num_barriers=shape.stages),
        ],
        grid=(PROCESSORS * _BLOCKS_PER_PROCESSOR,),
        grid_names=("blocks",),
        compiler_params=compiler_params(),
    )
    flat_x, flat_weight = x_WRI.reshape(-1, inputs), weight_EOI.reshape(count_E * outputs, inputs)
    product: jax.Array = kernel(experts_W, count, flat_x, flat_weight)
    return product


def _body(
    shape: _Shape,
    experts: Any,
    count: Any,
    x: Any,
    weight: Any,
    out: Any,
    weight_ring: Any,
    x_ring: Any,
    out_tile: Any,
    here: Any,
) -> None:
    """One thread block: (block of rows, tile of outputs) in turn; tiles of a block side by side share its rows."""
    workers, mine = PROCESSORS * _BLOCKS_PER_PROCESSOR, lax.axis_index("blocks")
    tiles = shape.outputs // shape.tile

    def entry(turn: jax.Array, _: None) -> None:
        index = mine + turn * workers
        block, tile = lax.div(index, tiles), lax.rem(index, tiles)
        first_output = experts[block] * shape.outputs + tile * shape.tile
        total = _stream(shape, block * shape.rows, first_output, x, weight, weight_ring, x_ring, here)
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        out_tile[...] = total.astype(out_tile.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(out_tile, out.at[block, pl.ds(tile * shape.tile, shape.tile)])

    turns = lax.div(jnp.maximum(count[0] * tiles - mine, 0) + workers - 1, workers)
    lax.fori_loop(0, turns, entry, None)
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)


def _stream(
    shape: _Shape,
    first_row: jax.Array,
    first_output: jax.Array,
    x: Any,
    weight: Any,
    weight_ring: Any,
    x_ring: Any,
    here: Any,
) -> jax.Array:
    """The product over all inputs, float32 [tile, rows]."""
    steps = shape.inputs // shape.depth

    def fetch(step: jax.Array) -> None:
        slot, inputs = lax.rem(step, shape.stages), pl.ds(step * shape.depth, shape.depth)
        weights = weight.at[pl.ds(first_output, shape.tile), inputs]
        plgpu.copy_gmem_to_smem(weights, weight_ring.at[slot], here.at[slot])
        plgpu.copy_gmem_to_smem(x.at[pl.ds(first_row, shape.rows), inputs], x_ring.at[slot], here.at[slot])

    for step in range(shape.stages):
        fetch(jnp.int32(step))

    def multiply(step: jax.Array, total: jax.Array) -> jax.Array:
        slot = lax.rem(step, shape.stages)
        plgpu.barrier_wait(here.at[slot])
        total = mosaic_work.add_products(total, weight_ring.at[slot], x_ring.at[slot])
        pl.when(step + shape.stages < steps)(partial(fetch, step + shape.stages))
        return total

    empty = mosaic_work.filled((shape.tile, shape.rows), 0.0, plgpu.Layout.WGMMA)
    total: jax.Array = lax.fori_loop(0, steps, multiply, empty)
    return total
