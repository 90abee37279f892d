"""RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxserve.models.parameters import ONES, ZEROS, Build
from jaxserve.models.reductions import row_sum


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * (offset + weight) over the last axis; the statistics are float32."""

    def __init__(self, build: Build, size: int, axis: str = "embed") -> None:
        self.weight = build.parameter((size,), (axis,), ZEROS if build.norm_offset else ONES)
        self.eps, self.offset = build.norm_eps, build.norm_offset

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size], in the dtype of x."""
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(row_sum(wide * wide) / x.shape[-1] + self.eps)
        if self.offset:  # around zero a bfloat16 weight is finer than around one: add in float32
            shifted: jax.Array = (wide * scale * (self.offset + self.weight[...].astype(jnp.float32))).astype(x.dtype)
            return shifted
        normed: jax.Array = (wide * scale).astype(x.dtype) * self.weight[...]
        return normed


class LayerNorm(nnx.Module):
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last axis, in float32."""

    def __init__(self, build: Build, size: int, eps: float) -> None:
        self.weight = build.parameter((size,), (None,), ONES)
        self.bias = build.parameter((size,), (None,), ZEROS)
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size], in the dtype of x."""
        wide, size = x.astype(jnp.float32), x.shape[-1]
        centred = wide - row_sum(wide) / size
        normed = centred * jax.lax.rsqrt(row_sum(centred * centred) / size + self.eps)
        shifted: jax.Array = normed * self.weight[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)
        return shifted.astype(x.dtype)
