"""What the Mosaic GPU kernels have in common: work lists that are built inside the program, tiles, shared memory.

Work lists have a static size and a number of valid entries that only the device knows. A kernel is a fixed grid of
thread blocks that take entries in turn, so no loop's end is read by the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

SPLIT = 512
"""Keys of one entry of a decode work list, aligned at position 0: a row's bits do not depend on other rows."""
PROCESSORS = 132
"""Streaming multiprocessors of an H100: the grid is a multiple. Other numbers change speed only."""
SHARED_BYTES = 112 << 10
"""Shared memory of one thread block that lets two of them live on a multiprocessor (228 KiB on Hopper)."""
LOG2_E = 1.4426950408889634
MASKED = -1e30
"""Score of a key that a query does not see."""


@dataclass(frozen=True)
class Tile:
    """How an array of rows lies in shared memory for the matrix units."""

    columns: int
    itemsize: int = 2

    @property
    def swizzle(self) -> int:
        """Bytes of the swizzle pattern: the largest that divides a row."""
        row = self.columns * self.itemsize
        return next(size for size in (128, 64, 32) if row % size == 0)

    def transforms(self) -> tuple[Any, ...]:
        """The layout, for `plgpu.SMEM`."""
        return plgpu.TilingTransform((8, self.swizzle // self.itemsize)), plgpu.SwizzleTransform(self.swizzle)


def compiler_params() -> plgpu.CompilerParams:
    """Lane semantics on every version of jax (0.11 changed the default)."""
    return plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane)


def load(ref: Any, layout: Any) -> jax.Array:
    """What a reference holds, in registers."""
    held: jax.Array = plgpu.load(ref, (), layout=layout, optimized=False)
    return held


def filled(shape: tuple[int, ...], value: float, layout: Any) -> jax.Array:
    """float32 registers that all hold one value."""
    full: jax.Array = plgpu.layout_cast(jnp.full(shape, value, jnp.float32), layout)
    return full


def iota(shape: tuple[int, ...], dimension: int) -> jax.Array:
    """int32 registers that hold their index in a dimension of a matrix tile."""
    index: jax.Array = plgpu.broadcasted_iota(jnp.int32, shape, dimension, layout=plgpu.Layout.WGMMA)
    return index


def products(queries: Any, keys: Any) -> jax.Array:
    """Every query times every key, float32 [queries, keys], both in shared memory."""

    def multiply(out: Any) -> jax.Array:
        plgpu.wgmma(out, queries, keys.transpose((1, 0)))
        result: jax.Array = out[...]
        return result

    shape = plgpu.WGMMAAccumulatorRef((queries.shape[0], keys.shape[0]), jnp.float32)
    product: jax.Array = pl.run_scoped(multiply, shape)
    return product


def add_products(total: jax.Array, left: Any, right: Any) -> jax.Array:
    """`total` plus every row of `left` times every row of `right`, both in shared memory."""

    def multiply(out: Any) -> None:
        plgpu.wgmma(out, left, right.transpose((1, 0)))

    result: jax.Array = pl.run_state(multiply)(plgpu.WGMMAAccumulatorRef.init(total))
    return result


def store_turned(target: Any, value: jax.Array) -> None:
    """16-bit registers [m, n] into shared memory [n, m], a `Tile`."""
    target.transpose((1, 0))[...] = plgpu.layout_cast(value, plgpu.Layout.WGMMA_TRANSPOSED)


def accumulate(total: jax.Array, left: jax.Array, right: Any) -> jax.Array:
    """`total` plus the product of registers and an operand in shared memory."""

    def multiply(out: Any) -> None:
        plgpu.wgmma(out, left, right)

    result: jax.Array = pl.run_state(multiply)(plgpu.WGMMAAccumulatorRef.init(total))
    return result


def round_up(number: int, multiple: int) -> int:
    """The next multiple."""
    return number + -number % multiple
