"""The matmul backend for CPUs: C++ kernels (`jaxserve.native`) where every array is whole on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxserve.models.config import WeightFormat
from jaxserve.models.kernels.target import Target
from jaxserve.models.kernels.xla import Xla
from jaxserve.models.quantization import Weight
from jaxserve.native.calls import FLOATS, matmul_float
from jaxserve.native.library import load, unavailable


@dataclass(frozen=True)
class NativeMatmul(Xla):
    """See `MatmulBackend`. What there is no kernel for goes through XLA."""

    name: str = "native"

    def refusal(self, form: WeightFormat | None, target: Target) -> str | None:
        """Other devices, and machines where the kernels can't be had."""
        if target.platform != "cpu":
            return "runs on CPUs only"
        reason = unavailable()
        return None if reason is None else f"is not there: {reason}"

    def multiply(
        self, x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True
    ) -> jax.Array:
        """See `MatmulBackend`."""
        if not local or not _is_plain(weight):
            return super().multiply(x_TI, weight, dtype, local=local)
        return self._multiply_plain(x_TI, (weight,), dtype)[0]

    def multiply_all(
        self, x_TI: jax.Array, weights: Sequence[Weight], dtype: DTypeLike | None = None, *, local: bool = True
    ) -> tuple[jax.Array, ...]:
        """See `MatmulBackend`."""
        if not local or not all(_is_plain(weight) for weight in weights):
            return super().multiply_all(x_TI, weights, dtype, local=local)
        return self._multiply_plain(x_TI, weights, dtype)

    def _multiply_plain(
        self, x_TI: jax.Array, weights: Sequence[Weight], dtype: DTypeLike | None
    ) -> tuple[jax.Array, ...]:
        products = matmul_float(load(), x_TI.astype(jnp.float32), [weight.values for weight in weights])
        return tuple(y_TO.astype(dtype or x_TI.dtype) for y_TO in products)


def _is_plain(weight: Weight) -> bool:
    return weight.format is None and weight.values.dtype in FLOATS
