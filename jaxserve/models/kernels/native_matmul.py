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
from jaxserve.models.quantization import Weight, packed, scales
from jaxserve.native.calls import FLOATS, Codes, Tiles, matmul_blocks, matmul_float, matmul_scaled
from jaxserve.native.library import load, unavailable


@dataclass(frozen=True)
class NativeMatmul(Xla):
    """See `MatmulBackend`. What there is no kernel for goes through XLA."""

    name: str = "native"
    widens: bool = True
    tiles: bool = True

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
        if not local or not _has_kernel(weight):
            return super().multiply(x_TI, weight, dtype, local=local)
        return _multiply(x_TI, (weight,), dtype)[0]

    def multiply_all(
        self, x_TI: jax.Array, weights: Sequence[Weight], dtype: DTypeLike | None = None, *, local: bool = True
    ) -> tuple[jax.Array, ...]:
        """See `MatmulBackend`."""
        alike = len({weight.format for weight in weights}) == 1
        if not local or not alike or not all(map(_has_kernel, weights)):
            return super().multiply_all(x_TI, weights, dtype, local=local)
        return _multiply(x_TI, weights, dtype)


def _has_kernel(weight: Weight) -> bool:
    if weight.values.ndim != 2:
        return False
    if weight.format is None:
        return weight.values.dtype in FLOATS
    if weight.format.tiled:
        return True
    even = packed(weight.format) == 1 or (weight.format.block or 1) % 2 == 0
    return even and weight.format.code in ("int8", "e4m3", "e2m1")


def _multiply(x_TI: jax.Array, weights: Sequence[Weight], dtype: DTypeLike | None) -> tuple[jax.Array, ...]:
    """Products with weights of one format, float32 inside."""
    form, wide = weights[0].format, x_TI.astype(jnp.float32)
    if form is None:
        products = matmul_float(load(), wide, [weight.values for weight in weights])
    elif form.tiled:
        held = [Tiles(weight.values, weight.scale) for weight in weights]
        products = matmul_blocks(load(), wide, held, group=form.block or 0, offsets=form.offsets)
    else:
        codes = [Codes(weight.values, scales(weight.scale, form)) for weight in weights]
        products = matmul_scaled(load(), wide, codes, block=form.block, pairs=packed(form) == 2)
    return tuple(y_TO.astype(dtype or x_TI.dtype) for y_TO in products)
