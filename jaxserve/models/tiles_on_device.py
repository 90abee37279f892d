"""What weights in tiles (`tiles.py`) mean, as arrays of jax: for everything but products, which kernels do."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxserve.models.config import WeightFormat
from jaxserve.models.tiles import FOUR, TILE, group, num_factors, packed


def outputs(codes: jax.Array) -> int:
    """Rows of the weight."""
    rows: int = codes.shape[-2] * TILE
    return rows


def dequantised(codes: jax.Array, scale: jax.Array, form: WeightFormat) -> jax.Array:
    """float32 [..., out, in]."""
    lead, tiles = codes.shape[:-2], codes.shape[-2]
    numbers = _numbers(codes.reshape(*lead, tiles, -1, TILE, FOUR), form, axis=-3)  # [..., tiles, in / 4, 16, 4]
    numbers = jnp.swapaxes(numbers, -3, -2).reshape(*lead, tiles, TILE, -1)
    factors = scale.astype(jnp.float32).reshape(*lead, tiles, -1, num_factors(form), TILE)
    factors = jnp.moveaxis(factors, -1, -3)  # [..., tiles, 16, groups, 1 or 2]
    wide: jax.Array = _scaled(numbers, factors, form)
    return wide.reshape(*lead, tiles * TILE, -1)


def take_rows(codes: jax.Array, scale: jax.Array, form: WeightFormat, index_T: jax.Array) -> jax.Array:
    """float32 [T, in]: rows of a weight [out, in] by their numbers, which are clipped to those that there are."""
    index_T = jnp.clip(index_T, 0, outputs(codes) - 1)
    tile_T, place_T = index_T // TILE, index_T % TILE
    picked = codes.reshape(codes.shape[0], -1, TILE, FOUR)[tile_T, :, place_T]  # [T, in / 4 or in / 8, 4]
    numbers = _numbers(picked, form, axis=-2).reshape(index_T.shape[0], -1)
    factors = scale.reshape(scale.shape[0], -1, num_factors(form), TILE)[tile_T, :, :, place_T]
    return _scaled(numbers, factors.astype(jnp.float32), form)


def _numbers(codes: jax.Array, form: WeightFormat, axis: int) -> jax.Array:
    """float32 from codes of which four inputs are the last axis and `axis` is the number of the four (or pairs)."""
    if packed(form) == 1:
        return codes.astype(jnp.float32)
    halves = jnp.stack([codes & 15, codes >> 4], axis=axis)
    shape = list(codes.shape)
    shape[axis] *= 2
    return halves.reshape(shape).astype(jnp.float32)


def _scaled(numbers: jax.Array, factors: jax.Array, form: WeightFormat) -> jax.Array:
    """[..., in] times scales, plus offsets, [..., groups, 1 or 2]."""
    grouped = numbers.reshape(*numbers.shape[:-1], -1, group(form))
    grouped = grouped * factors[..., 0:1]
    return (grouped + factors[..., 1:2] if form.offsets else grouped).reshape(numbers.shape)
