"""Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

The same words as jax's own generator. Written out as one expression, it becomes one kernel; jax's has a loop on CPU
that becomes twenty, each of which takes as long to compile.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

Words = tuple[UInt32[Array, "..."], UInt32[Array, "..."]]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry2x32(key: Words, counter: Words) -> Words:
    """The block of a key and a counter."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = _rotate(y, rotation) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def fold_in(key: Words, data: UInt32[Array, "..."]) -> Words:
    """`jax.random.fold_in`: the block of the key at the 64-bit counter `data`."""
    return threefry2x32(key, (jnp.zeros_like(data), data))


def _rotate(x: jax.Array, bits: int) -> jax.Array:
    return (x << bits) | (x >> (32 - bits))
