"""The universal backend for matrix products: plain JAX, compiled by XLA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.typing import DTypeLike

from jaxserve.models.activations import glu
from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels.grouped import apply_experts
from jaxserve.models.kernels.matmul_backend import Experts
from jaxserve.models.kernels.products import multiply
from jaxserve.models.kernels.target import Target
from jaxserve.models.quantization import Weight


@dataclass(frozen=True)
class Xla:
    """See `MatmulBackend`."""

    name: str = "xla"
    stacked_experts: bool = False
    blocks_in_experts: bool = False
    widens: bool = False
    tiles: bool = False
    gates: bool = False
    fixed: bool = False

    def refusal(self, form: WeightFormat | None, target: Target) -> str | None:
        """Nothing is refused."""
        return None

    def multiply(
        self, x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True
    ) -> jax.Array:
        """See `products.py`."""
        return multiply(x_TI, weight, dtype, local=local)

    def settle(self, y_TO: jax.Array) -> jax.Array:
        """See `MatmulBackend`."""
        return y_TO

    def multiply_all(
        self, x_TI: jax.Array, weights: Sequence[Weight], dtype: DTypeLike | None = None, *, local: bool = True
    ) -> tuple[jax.Array, ...]:
        """One product after the other."""
        return tuple(self.multiply(x_TI, weight, dtype, local=local) for weight in weights)

    def multiply_gated(
        self, x_TI: jax.Array, gate: Weight, up: Weight, spec: GluSpec, *, local: bool = True
    ) -> jax.Array:
        """Two products, then the activation."""
        gate_TF, up_TF = self.multiply_all(x_TI, (gate, up), local=local)
        return glu(spec, gate_TF, up_TF)

    def apply_experts(
        self, x_TD: jax.Array, weights_TA: jax.Array, experts_TA: jax.Array, experts: Experts, spec: GluSpec
    ) -> jax.Array:
        """See `grouped.py`."""
        return apply_experts(x_TD, weights_TA, experts_TA, experts, spec)
