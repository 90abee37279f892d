"""What the memory delivers: `python -m benchmarks.bandwidth cpu|gpu THREADS` prints bytes per second as JSON.

Decoding one sequence reads every weight once a token, so reading speed bounds it. Arrays are far larger than caches.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

# BLAS reads these at import.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np

BYTES = 256 << 20
DEVICE_BYTES = 4 << 30
ROUNDS = 7


def measure_device() -> dict[str, float]:
    """Best of some rounds on jax's first device: summing an array, and writing a changed copy of it."""
    import jax
    import jax.numpy as jnp

    array = jnp.ones(DEVICE_BYTES // 4, jnp.float32)
    programs = {"read": (jax.jit(jnp.sum), 1), "copy": (jax.jit(lambda x: x + 1), 2)}
    speeds = {}
    for name, (program, passes) in programs.items():
        jax.block_until_ready(program(array))
        seconds = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            jax.block_until_ready(program(array))
            seconds.append(time.perf_counter() - begin)
        speeds[name] = passes * DEVICE_BYTES / min(seconds)
    return speeds


def measure(threads: int) -> dict[str, float]:
    """Best of some rounds, all threads together: reading two arrays (dot product), and copying one to another."""
    rows = [np.ones((2, BYTES // threads // 8), np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        read = _best(pool, [partial(np.dot, row[0], row[1]) for row in rows])
        copy = _best(pool, [partial(np.copyto, row[0], row[1]) for row in rows])
    return {"read": BYTES / read, "copy": BYTES / copy}


def _best(pool: ThreadPoolExecutor, jobs: list[Callable[[], object]]) -> float:
    """Fewest seconds in which all jobs ran side by side."""
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for future in [pool.submit(job) for job in jobs]:
            future.result()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[2])) if sys.argv[1] == "cpu" else measure_device()))
