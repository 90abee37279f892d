"""Products of tokens with the weight of one projection, in plain JAX."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxserve.models.quantization import Weight, decode, packed

_TILE = 512 << 10
"""Weights that are dequantised at a time on CPU: 2 MiB in float32."""
_FEWEST_ROWS = 16
"""Rows of a tile, however long."""


def multiply(
    x_TI: Float[Array, "T I"], weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True
) -> Float[Array, "T O"]:
    """x W^T as `dtype` (default: of x), dequantising W on the way.

    Args:
        x_TI: [T, in].
        weight: [out, in].
        dtype: of the result.
        local: every array is whole on its device; so rows of W may be taken tile by tile.
    """
    if weight.format is None:
        return contract(x_TI, weight.values, dtype)
    if weight.format.tiled:  # where a model was told to do without its kernels
        return contract(x_TI, weight.dequantised(x_TI.dtype), dtype)
    if not local or weight.outputs * x_TI.shape[1] <= _TILE:
        return _product(x_TI, weight, dtype)
    y_TO: jax.Array = jax.lax.platform_dependent(
        x_TI, weight, cpu=partial(_tiled_product, dtype=dtype), default=partial(_product, dtype=dtype)
    )
    return y_TO


def _product(x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None) -> jax.Array:
    """As `multiply`; a scale per row is applied to the result, and in float32.

    Where two codes share a byte, even and odd inputs are multiplied apart: their numbers need not be interleaved.
    """
    form, dtype = weight.format, dtype or x_TI.dtype
    if form is not None and packed(form) == 2:
        even, odd = weight.halves(x_TI.dtype)
        y_TO = contract(x_TI[:, 0::2], even, jnp.float32) + contract(x_TI[:, 1::2], odd, jnp.float32)
        return y_TO.astype(dtype)
    if form is None or form.block is not None:
        return contract(x_TI, weight.dequantised(x_TI.dtype), dtype)
    scale_O: jax.Array = weight.scale
    return (contract(x_TI, decode(weight.values, form, x_TI.dtype), jnp.float32) * scale_O).astype(dtype)


def _tiled_product(x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None) -> jax.Array:
    """As `_product`, some rows of W at a time.

    XLA:CPU writes the dequantised matrix to memory before it multiplies: 3 to 7 times the time of a float32 product.
    Tiles stay in the cache. The last tile begins where it is full, so that some rows may be computed twice.
    """
    tokens, outputs = x_TI.shape[0], weight.outputs
    rows = max(_FEWEST_ROWS, _TILE // x_TI.shape[1])

    def tile(index: jax.Array, y_TO: jax.Array) -> jax.Array:
        first = jnp.minimum(index * rows, outputs - rows)
        part = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, first, rows), weight)
        return jax.lax.dynamic_update_slice_in_dim(y_TO, _product(x_TI, part, dtype), first, axis=1)

    if rows >= outputs:
        return _product(x_TI, weight, dtype)
    zeros = jnp.zeros((tokens, outputs), dtype or x_TI.dtype)
    y_TO: jax.Array = jax.lax.fori_loop(0, -(-outputs // rows), tile, zeros)
    return y_TO


def contract(
    x_TI: Float[Array, "T I"], weight_OI: Float[Array, "O I"], dtype: DTypeLike | None = None
) -> Float[Array, "T O"]:
    """x W^T as `dtype` (default: of x); float32 operands are multiplied in full precision on every backend.

    A single row gets company: alone, XLA:CPU would multiply it by another routine than several, with other bits.
    """
    tokens = x_TI.shape[0]
    precision = jax.lax.Precision.HIGHEST if x_TI.dtype == jnp.float32 else None
    y_TO: jax.Array = jax.lax.dot_general(
        x_TI if tokens > 1 else jnp.pad(x_TI, ((0, 1), (0, 0))),
        weight_OI,
        (((1,), (1,)), ((), ())),
        precision=precision,
        preferred_element_type=dtype or x_TI.dtype,
    )
    return y_TO[:tokens]
