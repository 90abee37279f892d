"""Gated feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxserve.models.config import Activation, GluSpec, MlpSpec
from jaxserve.models.parameters import Build, Linear

ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


def glu(spec: GluSpec, gate: jax.Array, up: jax.Array) -> jax.Array:
    """The gated activation of two projections of equal shape."""
    if spec.limit is not None:
        gate, up = jnp.minimum(gate, spec.limit), jnp.clip(up, -spec.limit, spec.limit)
    if spec.sigmoid_scale != 1.0:
        gate = gate * jax.nn.sigmoid(spec.sigmoid_scale * gate)
    else:
        gate = ACTIVATIONS[spec.activation](gate)
    return gate * (up + spec.up_offset if spec.up_offset else up)


class GatedMlp(nnx.Module):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020); width split over the whole mesh, one all-reduce at the end."""

    def __init__(self, build: Build, spec: MlpSpec, width: int) -> None:
        inner = ("mlp", "embed")
        self.gate_proj = Linear(build, width, spec.width, inner, bias=spec.bias)
        self.up_proj = Linear(build, width, spec.width, inner, bias=spec.bias)
        self.down_proj = Linear(build, spec.width, width, ("embed", "mlp"), bias=spec.bias)
        self.glu = GluSpec(spec.activation)
        self.rules = build.rules

    def __call__(self, x_TD: jax.Array) -> jax.Array:
        """[T, D] -> [T, D]."""
        with jax.named_scope("mlp"):
            inner_TF = glu(self.glu, self.gate_proj(x_TD), self.up_proj(x_TD))
            return self.rules.constrain(self.down_proj(inner_TF))
