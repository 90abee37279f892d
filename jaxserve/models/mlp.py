"""Gated feed-forward layers."""

from __future__ import annotations

import jax
from flax import nnx

from jaxserve.models.config import GluSpec, MlpSpec
from jaxserve.models.parameters import Build, Linear, project_gated


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
            inner_TF = project_gated(x_TD, self.gate_proj, self.up_proj, self.glu)
            return self.rules.constrain(self.down_proj(inner_TF))
