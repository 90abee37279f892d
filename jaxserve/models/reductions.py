"""Sums whose bits do not depend on how many rows are summed at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def row_sum(x: jax.Array) -> jax.Array:
    """Sum over the last axis, float32 [..., N] -> [..., 1].

    XLA:CPU orders the additions of `jnp.sum` by the whole shape, so a row's sum would change with the batch. A product
    with two rows of ones adds in an order that depends on N alone (measured for 2 to 512 rows, N from 16 to 4096; one
    row of ones does not; a single row gets company). On GPUs the product would be a kernel of its own; on TPUs heads
    would be gathered from all chips first.
    """
    plain = dict.fromkeys(("cuda", "rocm", "tpu"), _plain_sum)
    total: jax.Array = jax.lax.platform_dependent(x, default=_product_sum, **plain)
    return total


def _plain_sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=-1, keepdims=True)


def _product_sum(x: jax.Array) -> jax.Array:
    flat = x.reshape(-1, x.shape[-1])
    if flat.shape[0] == 1:
        flat = jnp.pad(flat, ((0, 1), (0, 0)))
    ones = jnp.ones((2, x.shape[-1]), x.dtype)
    sums = jax.lax.dot_general(flat, ones, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
    return sums[: math.prod(x.shape[:-1]), :1].reshape(*x.shape[:-1], 1)


def ordered_sum(parts: Sequence[jax.Array]) -> jax.Array:
    """Elementwise sum of one or more arrays, added from first to last whatever their shape."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
