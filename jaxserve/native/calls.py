"""The kernels as functions of arrays, for use inside jitted functions on CPU devices."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxserve.native.library import Library

FLOATS = ("float32", "bfloat16", "float16")
"""Types of weights that `matmul_float` takes."""


def matmul_float(library: Library, x_TI: jax.Array, weights_OI: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """x W^T for each weight.

    A row's bits depend on that row and the weight alone.

    Args:
        library: whose kernel runs.
        x_TI: float32 [T, in].
        weights_OI: [out, in] each, of one of `FLOATS`; widened to float32 in the product.

    Returns:
        float32 [T, out] for each weight.
    """
    tokens = x_TI.shape[0]
    shapes = [jax.ShapeDtypeStruct((tokens, weight.shape[0]), jnp.float32) for weight in weights_OI]
    return tuple(jax.ffi.ffi_call(library.target("matmul_float"), shapes)(x_TI, *weights_OI))
