"""Probability mass in exact integers.

A float sum depends on the order of its terms, so on shapes, neighbours and devices. Here a token weighs
`round(exp(d) * 2^fraction_bits(V))` units, d = (logit - row maximum) / temperature, and masses are sums of integers:
exact, hence equal whatever the order, the batch or the code path. A mass has up to 48 bits and is kept as two words,
high * 2^16 + low with low < 2^16, because 64-bit integers are not available on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, UInt32

_LOW = 0xFFFF


class Mass(NamedTuple):
    """A whole number of units, high * 2^16 + low, low < 2^16; uint32 arrays of one shape."""

    high: UInt32[Array, "..."]
    low: UInt32[Array, "..."]


def fraction_bits(vocab_size: int) -> int:
    """Bits of a weight: 30 for vocabularies below 2^18, two fewer below 2^20, so that no sum overflows."""
    if vocab_size >= 1 << 20:
        raise ValueError(f"a vocabulary of {vocab_size} tokens is too large to sum exactly")
    return 30 if vocab_size < 1 << 18 else 28


def weigh(d: Float32[Array, "*shape"], bits: int) -> UInt32[Array, "*shape"]:
    """Weight in units of 2^-bits of log-weights d <= 0: uint32, same shape."""
    # The product is exact, so fusing it with the addition changes nothing. (lax.round is a scalar call on CPU: 30 times
    # slower.)
    return (jnp.exp(d) * 2.0**bits + 0.5).astype(jnp.int32).astype(jnp.uint32)


def weigh_surprise(d: Float32[Array, "*shape"], weights: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """-d times the weight, in the same units: uint32 (below 2^bits / e + 1), 0 where the weight is."""
    twice = jnp.where(weights == 0, 0.0, -2.0 * d * weights.astype(jnp.float32))
    # Rounded in integers: a compiler may fuse "+ 0.5" with this product, in one place and not in another.
    return ((twice.astype(jnp.int32) + 1) >> 1).astype(jnp.uint32)


def normalize(high: UInt32[Array, "*shape"], low: UInt32[Array, "*shape"]) -> Mass:
    """Carry what `low` holds beyond 16 bits."""
    return Mass(high + (low >> 16), low & _LOW)


def total(weights: UInt32[Array, "..."], axis: int = -1) -> Mass:
    """Exact sum of at most 2^16 weights along an axis."""
    words = (weights >> 16, weights & _LOW)
    zero = jnp.uint32(0)
    # One variadic reduction: two separate ones would each recompute the weights (measured: half the time).
    high, low = lax.reduce(words, (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), (axis % weights.ndim,))
    return normalize(high, low)


def add_up(mass: Mass, axis: int = -1) -> Mass:
    """Exact sum of at most 2^16 masses along an axis."""
    return normalize(mass.high.sum(axis, dtype=jnp.uint32), mass.low.sum(axis, dtype=jnp.uint32))


def running(mass: Mass) -> Mass:
    """Exact running sum along the last axis (at most 2^16 entries), each entry included."""
    return normalize(lax.cumsum(mass.high, mass.high.ndim - 1), lax.cumsum(mass.low, mass.low.ndim - 1))


def split(weights: UInt32[Array, "..."]) -> Mass:
    """Weights as masses."""
    return Mass(weights >> 16, weights & _LOW)


def less(a: Mass, b: Mass) -> Bool[Array, "..."]:
    """a < b."""
    return (a.high < b.high) | ((a.high == b.high) & (a.low < b.low))


def subtract(a: Mass, b: Mass) -> Mass:
    """a - b, for b <= a."""
    borrow = (a.low < b.low).astype(jnp.uint32)
    return Mass(a.high - b.high - borrow, (a.low + (borrow << 16) - b.low) & _LOW)


def increment(mass: Mass) -> Mass:
    """One unit more."""
    return normalize(mass.high, mass.low + 1)


def scale(mass: Mass, fraction: UInt32[Array, "..."]) -> Mass:
    """floor(mass * fraction / 2^32) for a uint32 fraction."""
    high_word, high_rest = _multiply(mass.high, fraction)
    low_word, low_rest = _multiply(mass.low, fraction)
    # mass * fraction = (high_word * 2^32 + high_rest) * 2^16 + low_word * 2^32 + low_rest, to be divided by 2^32.
    tail = (high_rest & _LOW) << 16
    carry = (tail + low_rest < tail).astype(jnp.uint32)
    return normalize(high_word, low_word + (high_rest >> 16) + carry)


def to_float(mass: Mass) -> Float32[Array, "..."]:
    """The mass as float32, rounded."""
    return mass.high.astype(jnp.float32) * 65536.0 + mass.low.astype(jnp.float32)


def _multiply(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The high and low word of the 64-bit product of two uint32 arrays."""
    a1, a0, b1, b0 = a >> 16, a & _LOW, b >> 16, b & _LOW
    middle = a1 * b0 + (a0 * b0 >> 16)  # < 2^32: (2^16 - 1)^2 + 2^16 - 1
    other = (middle & _LOW) + a0 * b1
    return a1 * b1 + (middle >> 16) + (other >> 16), a * b
