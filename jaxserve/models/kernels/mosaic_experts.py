"""Grouped matrix products on Hopper (Pallas Mosaic GPU): blocks of rows, each times the matrix of its own expert.

The weights are the left operand, whose tile has 64 rows at least; the rows of tokens, 8 or more, are the right one: a
block of 8 rows reads a matrix once and wastes nothing, and results are turned over as they are stored. A thread block
takes one (block of rows, tile of outputs) after the other and streams the inner dimension through a ring of shared
memory, in one order: a row's bits depend neither on its neighbours nor on their number. Experts without tokens are not
read. Gate and up run side by side, and what is written is their gated activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxserve.models.activations import glu
from jaxserve.models.config import GluSpec
from jaxserve.models.kernels import mosaic_work
from jaxserve.models.kernels.mosaic_work import PROCESSORS, SHARED_BYTES, Tile, compiler_params

FEWEST_ROWS, MOST_ROWS = 8, 128
"""Bounds of the rows per block."""
STEP = 64
"""Divides both dimensions of a matrix."""
_BLOCKS_PER_PROCESSOR = 2


class Matrices(NamedTuple):
    """One projection of all experts."""

    weight_EOI: jax.Array
    bias_EO: jax.Array | None = None


@dataclass(frozen=True)
class _Shape:
    """Static sizes of the kernel."""

    rows: int
    inputs: int
    outputs: int
    matrices: int
    """1, or 2: gate and up."""
    biases: bool
    shared: bool
    """All blocks have the same rows."""
    out_bytes: int
    turned: bool
    """Results are turned over as they are stored, as 16-bit numbers can be."""

    @property
    def tile(self) -> int:
        """Outputs of a tile."""
        return STEP if self.outputs % (2 * STEP) or self.matrices > 1 else 2 * STEP

    @property
    def depth(self) -> int:
        """Inputs of a step."""
        return STEP if self.inputs % (2 * STEP) else 2 * STEP

    @property
    def stages(self) -> int:
        """Steps in flight."""
        spare = SHARED_BYTES - self.tile * self.rows * self.out_bytes - 2048
        fitting = max(2, spare // ((self.matrices * self.tile + self.rows) * self.depth * 2))
        return min(8, fitting, self.inputs // self.depth)


def supports(inputs: int, outputs: int, dtype: jnp.dtype) -> bool:
    """Whether the kernel takes matrices [outputs, inputs] of this type."""
    return inputs % STEP == 0 and outputs % STEP == 0 and dtype in (jnp.bfloat16, jnp.float16)


def grouped_product(
    x: jax.Array,
    sides: Sequence[Matrices],
    experts_W: jax.Array,
    count: jax.Array,
    dtype: jnp.dtype,
    *,
    spec: GluSpec | None = None,
) -> jax.Array:
    """Each block of rows times the transposed matrix of its expert, or the gated activation of two such products.

    Args:
        x: W blocks of R rows [W, R, I], R a multiple of 8; [1, R, I] where all blocks have the same.
        sides: matrices of the same dtype [E, O, I]; with `spec` two: gate and up.
        experts_W: int32, in [0, E).
        count: int32 [1], valid blocks, the first of W.
        dtype: of the result: that of x, or float32 of one projection.
        spec: the activation, made in float32.

    Returns:
        [W, R, O]; anything in blocks that are not valid.
    """
    weights = [side.weight_EOI for side in sides]
    biases = [side.bias_EO.astype(jnp.float32) for side in sides if side.bias_EO is not None]
    (blocks,), (_, rows, inputs), outputs = experts_W.shape, x.shape, weights[0].shape[1]
    size, shared = jnp.dtype(dtype).itemsize, x.shape[0] == 1
    shape = _Shape(rows, inputs, outputs, len(sides), bool(biases), shared, size, turned=size == 2)
    transforms = Tile(shape.depth).transforms()
    kernel = plgpu.kernel(
        partial(_body, shape, spec),
        out_type=jax.ShapeDtypeStruct((blocks, *((rows, outputs) if shape.turned else (outputs, rows))), dtype),
        scratch_types=[
            plgpu.SMEM((shape.stages * len(sides), shape.tile, shape.depth), x.dtype, transforms=transforms),
            plgpu.SMEM((shape.stages, rows, shape.depth), x.dtype, transforms=transforms),
            plgpu.SMEM((rows, shape.tile), dtype, transforms=Tile(shape.tile).transforms())
            if shape.turned
            else plgpu.SMEM((shape.tile, rows), dtype),
            plgpu.Barrier(num_arrivals=len(sides) + 1, num_barriers=shape.stages),
        ],
        grid=(PROCESSORS * _BLOCKS_PER_PROCESSOR,),
        grid_names=("blocks",),
        compiler_params=compiler_params(),
    )
    flat = [weight.reshape(-1, inputs) for weight in weights]
    product: jax.Array = kernel(experts_W, count, x.reshape(-1, inputs), *flat, *biases)
    return product if shape.turned else product.swapaxes(1, 2)


def _body(shape: _Shape, spec: GluSpec | None, experts: Any, count: Any, x: Any, *refs: Any) -> None:
    """One thread block: (block of rows, tile of outputs) in turn; tiles of a block side by side share its rows."""
    workers, mine = PROCESSORS * _BLOCKS_PER_PROCESSOR, lax.axis_index("blocks")
    tiles, sides = shape.outputs // shape.tile, shape.matrices
    weights, biases = refs[:sides], refs[sides : 2 * sides] if shape.biases else ()
    out, weight_ring, x_ring, out_tile, here = refs[-5:]

    def entry(turn: jax.Array, _: None) -> None:
        index = mine + turn * workers
        block, tile = lax.div(index, tiles), lax.rem(index, tiles)
        expert, outputs = experts[block], pl.ds(tile * shape.tile, shape.tile)
        row = jnp.int32(0) if shape.shared else block
        totals = _stream(shape, row, expert * shape.outputs + outputs.start, x, weights, weight_ring, x_ring, here)
        for side, bias in enumerate(biases):
            totals[side] = _biased(totals[side], bias.at[expert, outputs])
        result = totals[0] if spec is None else glu(spec, totals[0], totals[1])
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        if shape.turned:
            mosaic_work.store_turned(out_tile, result.astype(out_tile.dtype))
        else:
            out_tile[...] = result
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(out_tile, out.at[block, :, outputs] if shape.turned else out.at[block, outputs])

    turns = lax.div(jnp.maximum(count[0] * tiles - mine, 0) + workers - 1, workers)
    lax.fori_loop(0, turns, entry, None)
    plgpu.wait_smem_to_gmem(0, wait_read_only=True)


def _biased(total: jax.Array, bias: Any) -> jax.Array:
    """The sum with one number for each output."""
    held = mosaic_work.load(bias, plgpu.Layout.WGMMA.reduce(1))
    return total + lax.broadcast_in_dim(held, total.shape, [0])


def _stream(
    shape: _Shape,
    block: jax.Array,
    first_output: jax.Array,
    x: Any,
    weights: Sequence[Any],
    weight_ring: Any,
    x_ring: Any,
    here: Any,
) -> list[jax.Array]:
    """The products over all inputs, float32 [tile, rows] each."""
    steps, sides = shape.inputs // shape.depth, shape.matrices

    def fetch(step: jax.Array) -> None:
        slot, inputs = lax.rem(step, shape.stages), pl.ds(step * shape.depth, shape.depth)
        for side, weight in enumerate(weights):
            source = weight.at[pl.ds(first_output, shape.tile), inputs]
            plgpu.copy_gmem_to_smem(source, weight_ring.at[slot * sides + side], here.at[slot])
        plgpu.copy_gmem_to_smem(x.at[pl.ds(block * shape.rows, shape.rows), inputs], x_ring.at[slot], here.at[slot])

    for step in range(shape.stages):
        fetch(jnp.int32(step))

    def multiply(step: jax.Array, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        slot = lax.rem(step, shape.stages)
        plgpu.barrier_wait(here.at[slot])
        multiplied = tuple(
            mosaic_work.add_products(total, weight_ring.at[slot * sides + side], x_ring.at[slot])
            for side, total in enumerate(totals)
        )
        pl.when(step + shape.stages < steps)(partial(fetch, step + shape.stages))
        return multiplied

    empty = mosaic_work.filled((shape.tile, shape.rows), 0.0, plgpu.Layout.WGMMA)
    return list(lax.fori_loop(0, steps, multiply, (empty,) * sides))
