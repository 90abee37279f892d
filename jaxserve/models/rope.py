"""Rotary position embeddings (Su et al. 2021), half-split: dimension i rotates with dimension i + rotary_dim / 2.

`inverse_frequencies` is the place for further scalings, `rotate` for further layouts.
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
    """Radians per position of each rotating pair, [rotary_dim / 2]."""
    exponents = np.arange(0, spec.rotary_dim, 2, dtype=np.float64) / spec.rotary_dim
    frequencies = spec.theta**-exponents
    if spec.kind == "linear":
        frequencies = frequencies / spec.factor
    elif spec.kind == "llama3":
        frequencies = _llama3(frequencies, spec)
    return frequencies.astype(np.float32)


def _llama3(frequencies: NDArray[np.float64], spec: RopeSpec) -> NDArray[np.float64]:
    """Llama 3.1: wavelengths beyond the original context are stretched, short ones kept, those between interpolated."""
    turns = spec.original_context * frequencies / (2 * math.pi)
    keep = np.clip((turns - spec.low_freq_factor) / (spec.high_freq_factor - spec.low_freq_factor), 0.0, 1.0)
    return frequencies * (keep + (1.0 - keep) / spec.factor)


def rope_table(spec: RopeSpec, positions_T: jax.Array) -> RopeTable:
    """cos and sin at these positions."""
    angles = positions_T.astype(jnp.float32)[:, None] * jnp.asarray(inverse_frequencies(spec))
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_TNH: jax.Array, table: RopeTable) -> jax.Array:
    """Rotate the leading rotary_dim dimensions of each head; float32 inside, returned in the dtype of x."""
    cos, sin = (part[:, None, :] for part in table)
    half = cos.shape[-1]
    wide = x_TNH.astype(jnp.float32)
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
    turned = (first * cos - second * sin, second * cos + first * sin, rest)
    return jnp.concatenate(turned, axis=-1).astype(x_TNH.dtype)
