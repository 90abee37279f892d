"""RMSNorm (Zhang & Sennrich 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxserve.models.parameters import ONES, Build


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis; the statistics are float32."""

    def __init__(self, build: Build, size: int, axis: str = "embed") -> None:
        self.weight = build.parameter((size,), (axis,), ONES)
        self.eps = build.norm_eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size], in the dtype of x."""
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (wide * scale).astype(x.dtype) * self.weight[...]
