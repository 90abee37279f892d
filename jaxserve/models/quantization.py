"""Quantised weights: what codes and scales mean, on the device and on the host.

A weight [out, in] is held as codes and scales, W[o, i] = codes[o, i] * scale[o, i // block] (see `WeightFormat`).
Scales are kept per row also where a checkpoint shares them between rows: a row then has all it needs wherever a mesh
cuts, for 4 bytes more per `block` weights. Formats: OCP 8-bit Floating Point (OFP8) 1.0, OCP Microscaling (MX) 1.0.

Codes of floating-point types are held as bytes: XLA:CPU widens every array of an 8-bit float type, whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from numpy.typing import NDArray

from jaxserve.models import tiles, tiles_on_device
from jaxserve.models.config import WeightFormat

_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LARGEST_INT8 = 127


@partial(jax.tree_util.register_dataclass, data_fields=("values", "scale"), meta_fields=("format",))
@dataclass(frozen=True)
class Weight:
    """A weight as it is held; a pytree."""

    values: Any
    """[..., out, in], or codes: int8, bytes, or two in a byte [..., out, in / 2]."""
    scale: Any = None
    """[..., out], or [..., out, blocks]; None with `format`."""
    format: WeightFormat | None = None

    @property
    def count(self) -> int:
        """Experts, of [..., E, out, in]."""
        length: int = self.values.shape[-3]
        return length

    @property
    def outputs(self) -> int:
        """Rows."""
        length: int = self.values.shape[-2]
        return tiles_on_device.outputs(self.values) if self.format is not None and self.format.tiled else length

    def dequantised(self, dtype: DTypeLike) -> jax.Array:
        """[..., out, in] as numbers of `dtype`, the product of code and scale made in float32."""
        form = self.format
        if form is None:
            plain: jax.Array = self.values
            return plain
        if form.tiled:
            return tiles_on_device.dequantised(self.values, self.scale, form).astype(dtype)
        codes = decode(self.values, form, jnp.float32)
        factors: jax.Array = scales(self.scale, form)
        factors = factors[..., None] if form.block is None else spread(factors, form.block, codes.shape[-1])
        return (codes * factors).astype(dtype)

    def rows(self, index_T: jax.Array, dtype: DTypeLike) -> jax.Array:
        """[T, in]: rows of [out, in] by their numbers, clipped to those that there are."""
        if self.format is None:
            plain: jax.Array = jnp.take(self.values, index_T, axis=0, mode="clip").astype(dtype)
            return plain
        if self.format.tiled:
            return tiles_on_device.take_rows(self.values, self.scale, self.format, index_T).astype(dtype)
        part: Weight = jax.tree.map(lambda array: jnp.take(array, index_T, axis=0, mode="clip"), self)
        return part.dequantised(dtype)

    def halves(self, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
        """Of codes that are two in a byte: the even and the odd columns of `dequantised`, [..., out, in / 2] each."""
        form, codes = self.format, self.values
        if form is None or form.block is None or packed(form) != 2:
            raise ValueError(f"weights held as {form} are not two in a byte")
        factors = spread(scales(self.scale, form), form.block // 2, codes.shape[-1])
        low, high = (_fp4(nibbles.astype(jnp.int32)) * factors for nibbles in (codes & 15, codes >> 4))
        return low.astype(dtype), high.astype(dtype)


def code_shape(shape: Sequence[int], form: WeightFormat) -> tuple[int, ...]:
    """Shape of the codes of a weight [..., out, in]."""
    if form.tiled:
        return tiles.code_shape(shape, form)
    return (*shape[:-1], shape[-1] // packed(form))


def scale_shape(shape: Sequence[int], form: WeightFormat) -> tuple[int, ...]:
    """Shape of its scales."""
    if form.tiled:
        return tiles.scale_shape(shape, form)
    return tuple(shape[:-1]) if form.block is None else (*shape[:-1], -(-shape[-1] // form.block))


def packed(form: WeightFormat) -> int:
    """Codes in one element."""
    return 2 if form.code in ("e2m1", "uint4") else 1


def code_dtype(form: WeightFormat) -> str:
    """Type of the array of codes."""
    return "int8" if form.code == "int8" else "uint8"


def scale_dtype(form: WeightFormat) -> str:
    """Type of the array of scales."""
    return "uint8" if form.scale == "e8m0" else form.scale


def decode(codes: jax.Array, form: WeightFormat, dtype: DTypeLike) -> jax.Array:
    """The numbers that codes stand for, all of them exact in bfloat16 and wider types; [..., in] from [..., in / 2]."""
    if form.code == "int8":
        return codes.astype(dtype)
    if form.code == "e4m3":
        numbers: jax.Array = lax.platform_dependent(
            codes,
            cpu=lambda c: _small_float(c.astype(jnp.int32), exponent_bits=4, mantissa_bits=3).astype(dtype),
            default=lambda c: lax.bitcast_convert_type(c, jnp.float8_e4m3fn).astype(dtype),
        )
        return numbers
    pair = codes.astype(jnp.uint16)
    halves = lax.bitcast_convert_type((pair | (pair << 4)) & 0x0F0F, jnp.uint8)  # the low half comes first
    nibbles = halves.reshape(*codes.shape[:-1], 2 * codes.shape[-1]).astype(jnp.int32)
    return _fp4(nibbles).astype(dtype)


def _fp4(bits: jax.Array) -> jax.Array:
    return _small_float(bits, exponent_bits=2, mantissa_bits=1)


def _small_float(bits: jax.Array, *, exponent_bits: int, mantissa_bits: int) -> jax.Array:
    """float32 from the bits (int32) of a narrow type whose exponent's bias is 2^(exponent_bits - 1) - 1.

    Bits are moved to where float32 has them and the exponent's bias is corrected by an addition; subnormal numbers are
    multiples of the smallest one.
    """
    bias = 2 ** (exponent_bits - 1) - 1
    magnitude = bits & (2 ** (exponent_bits + mantissa_bits) - 1)
    normal = lax.bitcast_convert_type((magnitude << (23 - mantissa_bits)) + ((127 - bias) << 23), jnp.float32)
    subnormal = magnitude.astype(jnp.float32) * np.float32(2.0 ** (1 - bias - mantissa_bits))
    value = jnp.where(magnitude < 2**mantissa_bits, subnormal, normal)
    return jnp.where(bits >= 2 ** (exponent_bits + mantissa_bits), -value, value)


def scales(held: jax.Array, form: WeightFormat) -> jax.Array:
    """Scales as float32."""
    if form.scale == "float32":
        return held
    return lax.bitcast_convert_type(held.astype(jnp.int32) << 23, jnp.float32)


def spread(scale: jax.Array, block: int, inputs: int) -> jax.Array:
    """[..., blocks] -> [..., inputs]: each input's own scale."""
    wide = jnp.broadcast_to(scale[..., None], (*scale.shape, block))
    return wide.reshape(*scale.shape[:-1], scale.shape[-1] * block)[..., :inputs]


def aligned(form: WeightFormat, inputs: int, parts: int) -> WeightFormat:
    """The format with blocks so short that cutting the inputs into `parts` cuts no block."""
    if form.block is None or form.tiled or parts == 1:
        return form
    return replace(form, block=math.gcd(form.block, inputs // parts))


def align_blocks(weight: Weight, parts: int) -> Weight:
    """The same weight in its `aligned` format."""
    if weight.format is None:
        return weight
    inputs = weight.values.shape[-1] * packed(weight.format)
    form = aligned(weight.format, inputs, parts)
    if form == weight.format or form.block is None or weight.format.block is None:
        return weight
    return Weight(weight.values, spread(weight.scale, weight.format.block // form.block, inputs // form.block), form)


def dequantise_host(codes: NDArray[Any], scale: NDArray[Any], form: WeightFormat) -> NDArray[np.float32]:
    """`Weight.dequantised` in NumPy: codes [..., out, in], scales [..., out] or [..., out, blocks] -> float32."""
    numbers = _decode_host(codes, form)
    factors = np.ldexp(np.float32(1), scale.astype(np.int32) - 127) if form.scale == "e8m0" else scale
    factors = factors[..., None] if form.block is None else np.repeat(factors, form.block, axis=-1)
    return np.multiply(numbers, factors[..., : numbers.shape[-1]], dtype=np.float32)


def _decode_host(codes: NDArray[Any], form: WeightFormat) -> NDArray[np.float32]:
    if form.code == "int8":
        return codes.astype(np.float32)
    if form.code == "e4m3":
        table = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
        return np.take(table, codes)
    table = np.array([*_FP4, *(-value for value in _FP4)], np.float32)
    both = np.stack([np.take(table, codes & 15), np.take(table, codes >> 4)], axis=-1)
    return both.reshape(*codes.shape[:-1], 2 * codes.shape[-1])


def int8_scales(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each row [..., in] -> [...]: its largest magnitude becomes 127; 1 for a row of zeros."""
    largest: NDArray[np.float32] = np.max(np.abs(rows), axis=-1)
    return np.where(largest > 0, largest / np.float32(_LARGEST_INT8), np.float32(1)).astype(np.float32)


def int8_codes(rows: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """The nearest codes of rows [..., in] with scales [...]."""
    codes: NDArray[np.int8] = np.rint(rows / scale[..., None]).astype(np.int8)
    return codes
