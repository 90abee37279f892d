"""The matmul backend for TPUs: what XLA:TPU must be told so that weights are read once, where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxserve.models.config import WeightFormat
from jaxserve.models.kernels.products import contract
from jaxserve.models.kernels.target import Target
from jaxserve.models.kernels.xla import Xla
from jaxserve.models.quantization import Weight, decode


@dataclass(frozen=True)
class TpuMatmul(Xla):
    """See `MatmulBackend`."""

    name: str = "pallas_tpu"

    def refusal(self, form: WeightFormat | None, target: Target) -> str | None:
        """Other devices than TPUs."""
        return None if target.platform == "tpu" else "needs a TPU"

    def settle(self, y_TO: jax.Array) -> jax.Array:
        """Cut into heads at once, the weight would be reshaped instead, and copied in each layer (3 times as slow)."""
        settled: jax.Array = lax.optimization_barrier(y_TO)
        return settled

    def multiply(
        self, x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True
    ) -> jax.Array:
        """See `MatmulBackend`. Where chips add parts of a product, they send each other the type of x, not float32."""
        form, wanted = weight.format, dtype or x_TI.dtype
        if local or form is None or form.code != "int8" or jnp.dtype(wanted) != x_TI.dtype:
            return super().multiply(x_TI, weight, dtype, local=local)
        y_TO = contract(x_TI, decode(weight.values, form, x_TI.dtype))
        return (y_TO.astype(jnp.float32) * weight.scale).astype(wanted)
