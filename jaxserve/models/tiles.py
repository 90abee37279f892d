"""Weights in tiles of 16 outputs side by side, as the CPU's kernels read them (`jaxserve.native`).

A weight [out, in] is `[out / 16, in, 16]` codes, four neighbouring inputs of an output together: so a vector of sums
belongs to as many outputs. Codes of 4 bits share bytes, of eight inputs the first four in the low halves. Scales are
`[out / 16, groups, 16]`; with offsets, each group's 16 scales are followed by its 16 offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxserve.models.config import WeightFormat

TILE = 16
_FOUR = 4


def code_shape(shape: Sequence[int], form: WeightFormat) -> tuple[int, ...]:
    """Shape of the codes of a weight [..., out, in]."""
    *lead, outputs, inputs = shape
    return (*lead, outputs // TILE, inputs * TILE // _packed(form))


def scale_shape(shape: Sequence[int], form: WeightFormat) -> tuple[int, ...]:
    """Shape of its scales and offsets."""
    *lead, outputs, inputs = shape
    return (*lead, outputs // TILE, inputs // _group(form) * TILE * _factors(form))


def outputs(codes: jax.Array) -> int:
    """Rows of the weight."""
    rows: int = codes.shape[-2] * TILE
    return rows


def dequantised(codes: jax.Array, scale: jax.Array, form: WeightFormat) -> jax.Array:
    """float32 [..., out, in]."""
    lead, tiles = codes.shape[:-2], codes.shape[-2]
    numbers = _numbers(codes.reshape(*lead, tiles, -1, TILE, _FOUR), form, axis=-3)  # [..., tiles, in / 4, 16, 4]
    numbers = jnp.swapaxes(numbers, -3, -2).reshape(*lead, tiles, TILE, -1)
    factors = scale.astype(jnp.float32).reshape(*lead, tiles, -1, _factors(form), TILE)
    factors = jnp.moveaxis(factors, -1, -3)  # [..., tiles, 16, groups, 1 or 2]
    wide: jax.Array = _scaled(numbers, factors, form)
    return wide.reshape(*lead, tiles * TILE, -1)


def take_rows(codes: jax.Array, scale: jax.Array, form: WeightFormat, index_T: jax.Array) -> jax.Array:
    """float32 [T, in]: rows of a weight [out, in] by their numbers, which are clipped to those that there are."""
    index_T = jnp.clip(index_T, 0, outputs(codes) - 1)
    tile_T, place_T = index_T // TILE, index_T % TILE
    picked = codes.reshape(codes.shape[0], -1, TILE, _FOUR)[tile_T, :, place_T]  # [T, in / 4 or in / 8, 4]
    numbers = _numbers(picked, form, axis=-2).reshape(index_T.shape[0], -1)
    factors = scale.reshape(scale.shape[0], -1, _factors(form), TILE)[tile_T, :, :, place_T]
    return _scaled(numbers, factors.astype(jnp.float32), form)


def tile_codes(codes: NDArray[Any], form: WeightFormat) -> NDArray[Any]:
    """Codes [out, in] as they are held."""
    fours = np.ascontiguousarray(codes).view(np.uint32)
    if _packed(form) == 2:
        fours = fours[:, 0::2] | fours[:, 1::2] << np.uint32(4)
    tiles = np.ascontiguousarray(fours.reshape(len(codes) // TILE, TILE, -1).swapaxes(1, 2))
    return tiles.reshape(len(tiles), -1).view(codes.dtype)


def tile_scales(factors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Scales, or scales and offsets, [out, groups] each, as they are held."""
    rows, groups = factors[0].shape
    both = np.stack(factors, axis=-1).reshape(rows // TILE, TILE, groups, len(factors))
    return both.transpose(0, 2, 3, 1).reshape(rows // TILE, -1)


def _numbers(codes: jax.Array, form: WeightFormat, axis: int) -> jax.Array:
    """float32 from codes of which four inputs are the last axis and `axis` is the number of the four (or pairs)."""
    if _packed(form) == 1:
        return codes.astype(jnp.float32)
    halves = jnp.stack([codes & 15, codes >> 4], axis=axis)
    shape = list(codes.shape)
    shape[axis] *= 2
    return halves.reshape(shape).astype(jnp.float32)


def _scaled(numbers: jax.Array, factors: jax.Array, form: WeightFormat) -> jax.Array:
    """[..., in] times scales, plus offsets, [..., groups, 1 or 2]."""
    grouped = numbers.reshape(*numbers.shape[:-1], -1, _group(form))
    grouped = grouped * factors[..., 0:1]
    return (grouped + factors[..., 1:2] if form.offsets else grouped).reshape(numbers.shape)


def _packed(form: WeightFormat) -> int:
    return 2 if form.code == "uint4" else 1


def _factors(form: WeightFormat) -> int:
    return 2 if form.offsets else 1


def _group(form: WeightFormat) -> int:
    if form.block is None:
        raise ValueError("tiles have groups")
    return form.block
