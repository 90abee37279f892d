"""The parts of a tower: its blocks and what turns features into embeddings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxserve.models.activations import ACTIVATIONS
from jaxserve.models.norm import LayerNorm, RMSNorm
from jaxserve.models.parameters import Build, Init, Linear
from jaxserve.models.rope import RopeTable
from jaxserve.models.vision.attention import VisionAttention
from jaxserve.models.vision.spec import VisionSpec


def tower_norm(build: Build, spec: VisionSpec, size: int) -> LayerNorm | RMSNorm:
    """A norm of the tower's kind."""
    if spec.norm == "layer":
        return LayerNorm(build, size, spec.norm_eps)
    return RMSNorm(replace(build, norm_eps=spec.norm_eps, norm_offset=0.0), size)


class VisionMlp(nnx.Module):
    """Feed-forward layer, gated or not; width split over the whole mesh, one all-reduce at the end."""

    def __init__(self, build: Build, spec: VisionSpec) -> None:
        inner = ("vision_mlp", None)
        self.gate_proj = Linear(build, spec.width, spec.inner, inner, bias=True) if spec.gated else None
        self.up_proj = Linear(build, spec.width, spec.inner, inner, bias=True)
        self.down_proj = Linear(build, spec.inner, spec.width, (None, "vision_mlp"), bias=True)
        self.activation, self.rules = spec.activation, build.rules

    def __call__(self, x_PD: jax.Array) -> jax.Array:
        """[P, D] -> [P, D]."""
        activate, up_PF = ACTIVATIONS[self.activation], self.up_proj(x_PD)
        inner_PF = activate(up_PF) if self.gate_proj is None else activate(self.gate_proj(x_PD)) * up_PF
        return self.rules.constrain(self.down_proj(inner_PF))


class VisionBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, build: Build, spec: VisionSpec) -> None:
        self.attention_norm = tower_norm(build, spec, spec.width)
        self.attention = VisionAttention(build, spec)
        self.mlp_norm = tower_norm(build, spec, spec.width)
        self.mlp = VisionMlp(build, spec)

    def __call__(self, x_PD: jax.Array, windows_P: jax.Array, table: RopeTable | None, *, windowed: bool) -> jax.Array:
        """[P, D] -> [P, D]."""
        x_PD = x_PD + self.attention(self.attention_norm(x_PD), windows_P, table, windowed=windowed)
        return x_PD + self.mlp(self.mlp_norm(x_PD))


@partial(jax.jit, static_argnames=("graphdef", "windowed"))
def run_block(
    graphdef: Any, state: Any, x_PD: jax.Array, windows_P: jax.Array, table: RopeTable | None, *, windowed: bool
) -> jax.Array:
    """One block, traced once for all blocks alike."""
    block: VisionBlock = nnx.merge(graphdef, state)
    return block(x_PD, windows_P, table, windowed=windowed)


class Merger(nnx.Module):
    """Squares of patches, normed and laid side by side, through two layers (Qwen2-VL, 2024).

    Args:
        build: how parameters are declared.
        spec: the tower.
        width: of the decoder.
        whole: the norm is over the whole square instead of each patch (Qwen3-VL's deepstack).
    """

    def __init__(self, build: Build, spec: VisionSpec, width: int, *, whole: bool = False) -> None:
        self.inputs = spec.merge**2 * spec.width
        self.norm = tower_norm(build, spec, self.inputs if whole else spec.width)
        self.up_proj = Linear(build, self.inputs, spec.joint_width, ("vision_mlp", None), bias=spec.joint_bias)
        self.down_proj = Linear(build, spec.joint_width, width, (None, "vision_mlp"), bias=spec.joint_bias)
        self.whole, self.activation, self.rules = whole, spec.joint_activation, build.rules

    def __call__(self, x_PD: jax.Array) -> jax.Array:
        """[P, D] -> [M, width of the decoder]."""
        squares = (-1, self.inputs)
        x_MI = self.norm(x_PD.reshape(squares)) if self.whole else self.norm(x_PD).reshape(squares)
        return self.rules.constrain(self.down_proj(ACTIVATIONS[self.activation](self.up_proj(x_MI))))


class Mlp2(nnx.Module):
    """Each patch through two layers (LLaVA-1.5, 2023)."""

    def __init__(self, build: Build, spec: VisionSpec, width: int) -> None:
        self.up_proj = Linear(build, spec.width, spec.joint_width, ("vision_mlp", None), bias=spec.joint_bias)
        self.down_proj = Linear(build, spec.joint_width, width, (None, "vision_mlp"), bias=spec.joint_bias)
        self.activation, self.rules = spec.joint_activation, build.rules

    def __call__(self, x_PD: jax.Array) -> jax.Array:
        """[P, D] -> [P, width of the decoder]."""
        return self.rules.constrain(self.down_proj(ACTIVATIONS[self.activation](self.up_proj(x_PD))))


class Pool(nnx.Module):
    """The mean of each square of patches, normed, through a matrix (Gemma 3, 2025)."""

    def __init__(self, build: Build, spec: VisionSpec, width: int) -> None:
        self.norm = RMSNorm(replace(build, norm_eps=spec.joint_eps), spec.width)
        self.proj = build.parameter((width, spec.width), (None, None), Init("normal", spec.width**-0.5))
        self.square = spec.merge**2

    def __call__(self, x_PD: jax.Array) -> jax.Array:
        """[P, D] -> [M, width of the decoder]."""
        mean_MD = jnp.mean(x_PD.reshape(-1, self.square, x_PD.shape[-1]).astype(jnp.float32), axis=1)
        embedded: jax.Array = self.norm(mean_MD.astype(x_PD.dtype)) @ self.proj[...].T
        return embedded


JOINTS = {"mlp": Mlp2, "merger": Merger, "pool": Pool}
