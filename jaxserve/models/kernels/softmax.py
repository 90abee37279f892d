"""Online softmax over blocks of keys (Milakov & Gimelshein 2018), in plain JAX, for X independent rows of queries.

Each row has K key/value heads with M query vectors each. Reproducibility: a query's result does not depend on X or on
the other queries of its row, because every product contracts the last axis of both operands with at least two query
vectors (XLA:CPU then computes rows independently of their number; measured), and because a block that is wholly masked
leaves the running state as it was, bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from jaxserve.models.reductions import row_sum

KEY_BLOCK = 128
"""Positions per step of the online softmax; pages must divide it."""
_MASKED = -1e30


class Running(NamedTuple):
    """State of the online softmax, float32: maximum and sum [X, K, M, 1], weighted values [X, K, M, V]."""

    peak: jax.Array
    total: jax.Array
    values: jax.Array


class Keys(NamedTuple):
    """One block of B keys and values of each row."""

    k_XKBH: jax.Array
    v_XKBV: jax.Array
    """Finite wherever some query may see the position."""
    seen_XB: jax.Array
    """Whether any query of the row may see the position; elsewhere keys and values may be anything, NaN too."""
    allowed_XMB: jax.Array
    """Whether a query sees it; M may be 1."""


def begin(shape: tuple[int, int, int], value_dim: int, sinks_KM: jax.Array | None = None) -> Running:
    """The state before any key for `shape` = (X, K, M); a sink is a logit that takes part without a value."""
    values = jnp.zeros((*shape, value_dim), jnp.float32)
    if sinks_KM is None:
        return Running(jnp.full((*shape, 1), _MASKED, jnp.float32), jnp.zeros((*shape, 1), jnp.float32), values)
    return Running(
        jnp.broadcast_to(sinks_KM[None, :, :, None], (*shape, 1)), jnp.ones((*shape, 1), jnp.float32), values
    )


def fold(
    state: Running, q_XKMH: Float[Array, "X K M H"], keys: Keys, *, scale: float, softcap: float | None = None
) -> Running:
    """The state after one more block of keys."""
    v_XKBV = jnp.where(keys.seen_XB[:, None, :, None], keys.v_XKBV, 0)
    scores = products(q_XKMH, keys.k_XKBH) * scale
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    allowed = keys.allowed_XMB[:, None]
    scores = jnp.where(allowed, scores, _MASKED)
    peak = jnp.maximum(state.peak, jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.where(allowed, jnp.exp(scores - peak), 0.0)
    decay = jnp.exp(state.peak - peak)
    return Running(
        peak,
        _decayed(state.total, decay) + row_sum(weights),
        _decayed(state.values, decay) + _weigh(weights.astype(v_XKBV.dtype), v_XKBV),
    )


def _decayed(x: jax.Array, decay: jax.Array) -> jax.Array:
    """The product, rounded: bare, XLA:CPU makes one operation of it and the addition that follows, without rounding
    in between, for some shapes and not for others (measured)."""
    return jnp.where(decay > 0.0, x * decay, 0.0)


def finish(state: Running) -> Float32[Array, "X K M V"]:
    """Attention float32 [X, K, M, V]; zero where a query saw nothing."""
    out: jax.Array = state.values / jnp.where(state.total == 0.0, 1.0, state.total)
    return out


def products(q_XKMH: Float[Array, "X K M H"], k_XKBH: Float[Array, "X K B H"]) -> Float32[Array, "X K M B"]:
    """Every query times every key of its row and head, float32 [X, K, M, B]; float32 operands in full precision."""
    return lax.dot_general(
        q_XKMH,
        k_XKBH,
        (((3,), (3,)), ((0, 1), (0, 1))),
        precision=_precision(q_XKMH),
        preferred_element_type=jnp.float32,
    )


def _weigh(weights_XKMB: jax.Array, v_XKBV: jax.Array) -> jax.Array:
    """Weighted sum of values, float32 [X, K, M, V].

    The values are transposed first, and for real: contracting their last axis is what keeps rows independent.
    """
    return products(weights_XKMB, lax.optimization_barrier(v_XKBV.swapaxes(2, 3)))


def _precision(x: jax.Array) -> lax.Precision | None:
    """float32 products are exact to float32 on every device."""
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
