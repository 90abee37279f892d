"""Rotary position embeddings (Su et al. 2021): frequencies of every kind, and the two layouts of rotating pairs.

Every frequency depends on the position alone, never on the length of the sequence: so a cached key is what it would be
if the sequence were computed again.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxserve.models.config import RopeSpec

RopeTable = tuple[jax.Array, jax.Array]
"""cos and sin of every token's angles, each float32 [T, rotary_dim / 2]."""


def inverse_frequencies(spec: RopeSpec) -> NDArray[np.float32]:
    """Radians per position of each rotating pair within the original context, [rotary_dim / 2]."""
    frequencies = _plain(spec)
    if spec.kind == "linear":
        frequencies = frequencies / spec.factor
    elif spec.kind == "llama3":
        frequencies = _llama3(frequencies, spec)
    elif spec.kind == "yarn":
        frequencies = _yarn(frequencies, spec)
    elif spec.kind == "longrope":
        frequencies = frequencies / np.asarray(spec.short_factors)
    return frequencies.astype(np.float32)


def _plain(spec: RopeSpec) -> NDArray[np.float64]:
    exponents = np.arange(0, spec.rotary_dim, 2, dtype=np.float64) / spec.rotary_dim
    return np.asarray(spec.theta**-exponents)


def _llama3(frequencies: NDArray[np.float64], spec: RopeSpec) -> NDArray[np.float64]:
    """Llama 3.1: wavelengths beyond the original context are stretched, short ones kept, those between interpolated."""
    turns = spec.original_context * frequencies / (2 * math.pi)
    keep = np.clip((turns - spec.low_freq_factor) / (spec.high_freq_factor - spec.low_freq_factor), 0.0, 1.0)
    return frequencies * (keep + (1.0 - keep) / spec.factor)


def _yarn(frequencies: NDArray[np.float64], spec: RopeSpec) -> NDArray[np.float64]:
    """YaRN (Peng et al. 2023): pairs between two numbers of turns are interpolated linearly by their index."""
    low, high = (
        spec.rotary_dim * math.log(spec.original_context / (turns * 2 * math.pi)) / (2 * math.log(spec.theta))
        for turns in (spec.beta_fast, spec.beta_slow)
    )
    if spec.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, spec.rotary_dim - 1)
    pairs = np.arange(spec.rotary_dim // 2)
    stretch = np.clip((pairs - low) / (high - low if high != low else 0.001), 0.0, 1.0)
    return np.asarray(frequencies * (1.0 - stretch + stretch / spec.factor))


def rope_table(spec: RopeSpec, positions_T: jax.Array) -> RopeTable:
    """cos and sin at these positions, int32 [T]; or [axes, T] where pairs rotate with axes of their own."""
    positions = positions_T.astype(jnp.float32)[..., None]
    if positions_T.ndim == 2:
        positions = positions[_axes_of_pairs(spec), :, 0].T
    frequencies = jnp.asarray(inverse_frequencies(spec))
    if spec.kind in ("dynamic", "longrope"):
        late = positions >= spec.original_context
        frequencies = jnp.where(late, _late_frequencies(spec, positions), frequencies)
    angles = positions * frequencies
    return jnp.cos(angles) * spec.attention_factor, jnp.sin(angles) * spec.attention_factor


def _axes_of_pairs(spec: RopeSpec) -> NDArray[np.int32]:
    """Which position axis each pair rotates with, [rotary_dim / 2]."""
    pairs = np.arange(spec.rotary_dim // 2)
    if not spec.sections_interleaved:
        return np.searchsorted(np.cumsum(spec.sections)[:-1], pairs, side="right").astype(np.int32)
    turns, axes = np.divmod(pairs, len(spec.sections))
    return np.where(turns < np.asarray(spec.sections)[axes], axes, 0).astype(np.int32)


def _late_frequencies(spec: RopeSpec, positions: jax.Array) -> jax.Array:
    """Frequencies [T or 1, rotary_dim / 2] of positions beyond the original context.

    longrope (Ding et al. 2024): the other set of factors. dynamic (NTK): the base grows with the position, as it does
    for a sequence that is generated token by token.
    """
    if spec.kind == "longrope":
        return jnp.asarray((_plain(spec) / np.asarray(spec.long_factors)).astype(np.float32))
    growth = spec.factor * (positions + 1.0) / spec.original_context - (spec.factor - 1.0)
    exponents = np.arange(0, spec.rotary_dim, 2, dtype=np.float32) / max(spec.rotary_dim - 2, 1)
    return jnp.asarray(_plain(spec).astype(np.float32)) * growth**-exponents


def rotate(x_TNH: jax.Array, table: RopeTable, *, interleaved: bool = False) -> jax.Array:
    """Rotate the leading rotary_dim dimensions of each head; float32 inside, returned in the dtype of x."""
    cos, sin = (part[:, None, :] for part in table)
    half = cos.shape[-1]
    wide = x_TNH.astype(jnp.float32)
    turning, rest = wide[..., : 2 * half], wide[..., 2 * half :]
    if interleaved:
        pairs = turning.reshape(*turning.shape[:-1], half, 2)
        first, second = pairs[..., 0], pairs[..., 1]
        turned = jnp.stack((first * cos - second * sin, second * cos + first * sin), axis=-1).reshape(turning.shape)
    else:
        first, second = turning[..., :half], turning[..., half:]
        turned = jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return jnp.concatenate((turned, rest), axis=-1).astype(x_TNH.dtype)
