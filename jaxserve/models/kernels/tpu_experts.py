"""Products of blocks of rows with the weights of their experts, on TPU: what is held is read once, where it lies.

Weights are those of all layers; layer and experts are numbers that the kernel's index maps read, so nothing is sliced
or copied. Blocks of one expert follow each other, and its weights stay in VMEM meanwhile. Codes are decoded in the
kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

from jaxserve.models.quantization import Weight

_TILE_BYTES = 6 << 20
"""Of weights in VMEM as they are held; twice, because the next ones are on their way. Inputs are read once a tile."""
_LANES = 128
_VMEM = 96 << 20

Part = tuple[Any, pl.BlockSpec]
"""An operand of the kernel and what one step sees of it."""


def grouped_product(
    x_WRI: jax.Array,
    weight: Weight,
    layer: jax.Array,
    experts_W: jax.Array,
    valid: jax.Array,
    dtype: DTypeLike,
    *,
    interpret: bool = False,
) -> jax.Array:
    """x W^T for each block.

    Args:
        x_WRI: W blocks of R rows.
        weight: [L, E, out, in], plain or coded.
        layer: int32 [1].
        experts_W: int32: expert of each block; equal ones follow each other.
        valid: int32 [1]: blocks that count.
        dtype: of the result.
        interpret: without a TPU, slowly.

    Returns:
        [W, R, out]; undefined in blocks that don't count.
    """
    blocks, rows, _ = x_WRI.shape
    outputs = weight.outputs
    tile = output_tile(outputs, weight.values.shape[-1] * weight.values.dtype.itemsize)
    body, parts = _parts(x_WRI, weight, tile)
    out: jax.Array = pl.pallas_call(
        body,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(-(-outputs // tile), valid[0]),
            in_specs=[spec for _, spec in parts],
            out_specs=pl.BlockSpec((1, rows, tile), lambda column, block, *_: (block, 0, column)),
        ),
        out_shape=jax.ShapeDtypeStruct((blocks, rows, outputs), dtype),
        interpret=interpret,
        name="grouped_product",
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=_VMEM, disable_bounds_checks=True
        ),
    )(layer, experts_W, *(array for array, _ in parts))
    return out


def output_tile(outputs: int, bytes_of_one: int) -> int:
    """Outputs of one step: all of them, or as many whole registers as fit."""
    fitting = max(_LANES, _TILE_BYTES // bytes_of_one // _LANES * _LANES)
    whole = [size for size in range(_LANES, fitting + 1, _LANES) if outputs % size == 0]
    best = whole[-1] if whole and whole[-1] * 2 > fitting else fitting
    return min(best, outputs + -outputs % _LANES)


def _parts(x_WRI: jax.Array, weight: Weight, tile: int) -> tuple[Callable[..., None], list[Part]]:
    """The kernel for a format, and its operands."""
    form, values = weight.format, weight.values
    codes = (values, _of_expert(tile, values.shape[-1]))
    if form is None:
        return _plain, [_rows(x_WRI), codes]
    if form.block is None:
        scales = jnp.asarray(weight.scale)[:, :, None]
        spec = pl.BlockSpec(
            (1, 1, 1, tile), lambda column, block, layer, experts: (layer[0], experts[block], 0, column)
        )
        return _row_scaled, [_rows(x_WRI), codes, (scales, spec)]
    turned = jnp.swapaxes(weight.scale, -1, -2)
    spec = pl.BlockSpec(
        (1, 1, turned.shape[-2], tile), lambda column, block, layer, experts: (layer[0], experts[block], 0, column)
    )
    if form.code == "e2m1":
        halves = [_rows(x_WRI[..., place::2]) for place in (0, 1)]
        bytes_ = jnp.swapaxes(values, -1, -2)  # as XLA:TPU lays out widths of no whole registers, so no copy
        wide = pl.BlockSpec((1, 1, bytes_.shape[-2], tile), spec.index_map)
        return partial(_nibbles, form.block), [*halves, (bytes_, wide), (turned, spec)]
    return partial(_block_scaled, form.block), [_rows(x_WRI), codes, (turned, spec)]


def _rows(x_WRI: jax.Array) -> Part:
    return x_WRI, pl.BlockSpec((1, *x_WRI.shape[1:]), lambda column, block, *_: (block, 0, 0))


def _of_expert(tile: int, width: int) -> pl.BlockSpec:
    return pl.BlockSpec(
        (1, 1, tile, width), lambda column, block, layer, experts: (layer[0], experts[block], column, 0)
    )


def _dot(x_RI: jax.Array, weight: jax.Array, contracted: int = 1) -> jax.Array:
    """float32, weights [out, in] or, contracted over axis 0, [in, out]; float32 operands in full precision."""
    precision = lax.Precision.HIGHEST if x_RI.dtype == jnp.float32 else None
    return lax.dot_general(
        x_RI, weight, (((1,), (contracted,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _chunks(out: Any, compute: Callable[[Any], jax.Array]) -> None:
    """128 outputs after the other, each by the same code: unrolled, a kernel would take minutes to compile."""

    def chunk(number: jax.Array, _: None) -> None:
        part = pl.ds(pl.multiple_of(number * _LANES, _LANES), _LANES)
        out[0, :, part] = compute(part).astype(out.dtype)

    lax.fori_loop(0, out.shape[2] // _LANES, chunk, None)


def _plain(layer: Any, experts: Any, x: Any, weight: Any, out: Any) -> None:
    out[0] = _dot(x[0], weight[0, 0]).astype(out.dtype)


def _row_scaled(layer: Any, experts: Any, x: Any, codes: Any, scales: Any, out: Any) -> None:
    _chunks(out, lambda part: _dot(x[0], codes[0, 0, part, :].astype(x.dtype)) * scales[0, 0, :, part])


def _block_scaled(block: int, layer: Any, experts: Any, x: Any, codes: Any, scales: Any, out: Any) -> None:
    """Each block of inputs apart, its sums times the scales of the outputs."""

    def compute(part: Any) -> jax.Array:
        total = jnp.zeros((out.shape[1], _LANES), jnp.float32)
        for number in range(scales.shape[2]):
            place = slice(number * block, min((number + 1) * block, codes.shape[3]))
            held = codes[0, 0, part, place]
            if held.dtype == jnp.uint8:  # outside of the kernel the change of type would be a copy of all weights
                held = lax.bitcast_convert_type(held, jnp.float8_e4m3fn)
            product = _dot(x[0, :, place], held.astype(x.dtype))
            total += product * scales[0, 0, number : number + 1, part]
        return total

    _chunks(out, compute)


def _nibbles(block: int, layer: Any, experts: Any, even: Any, odd: Any, codes: Any, scales: Any, out: Any) -> None:
    """Even and odd inputs apart."""
    count, half = scales.shape[2], block // 2

    def compute(part: Any) -> jax.Array:
        bits = codes[0, 0, :, part].astype(jnp.int32)
        factors = lax.bitcast_convert_type(scales[0, 0, :, part].astype(jnp.int32) << 23, jnp.float32)
        wide = jnp.broadcast_to(factors[:, None], (count, half, _LANES)).reshape(count * half, _LANES)
        low, high = ((_fp4(nibbles) * wide).astype(even.dtype) for nibbles in (bits & 15, (bits >> 4) & 15))
        return _dot(even[0], low, 0) + _dot(odd[0], high, 0)

    _chunks(out, compute)


def _fp4(nibbles: jax.Array) -> jax.Array:
    """float32 of the numbers of OCP MX's e2m1."""
    magnitude = nibbles & 7
    normal = lax.bitcast_convert_type((magnitude << 22) + (126 << 23), jnp.float32)
    value = jnp.where(magnitude < 2, magnitude.astype(jnp.float32) * 0.5, normal)
    return jnp.where(nibbles >= 8, -value, value)
