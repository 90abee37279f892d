"""Timing on a device, and the two ceilings that a step is measured against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def seconds(run: Callable[[], Any], repeat: int = 20, rounds: int = 5) -> float:
    """Median over rounds of the time per call, calls of a round enqueued one after the other."""
    jax.block_until_ready(run())
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(repeat):
            out = run()
        jax.block_until_ready(out)
        found.append((time.perf_counter() - started) / repeat)
    return statistics.median(found)


def copy_bandwidth(megabytes: int) -> float:
    """Bytes per second, read and written, of a large elementwise kernel."""
    x = jax.random.normal(jax.random.key(0), (megabytes << 19,), jnp.bfloat16)
    scale = jax.jit(lambda x: x * jnp.bfloat16(1.5))
    return 2 * x.nbytes / seconds(lambda: scale(x))


def matmul_rate(size: int) -> float:
    """Floating-point operations per second of a square bfloat16 product of random numbers."""
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), jnp.bfloat16) for seed in range(2))
    multiply = jax.jit(jnp.matmul)
    return 2 * size**3 / seconds(lambda: multiply(a, b))
