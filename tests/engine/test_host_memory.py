"""What nobody uses takes no memory."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve.engine.host_memory import drop_zeros, trim

MIB = 1 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="madvise is Linux's")
def test_zeros_take_no_memory_until_they_are_written():
    array = jax.jit(lambda: jnp.zeros((128, MIB // 4), jnp.float32))().block_until_ready()
    neighbour = np.full(MIB, 7.0)
    before = resident()
    drop_zeros([array])
    assert before - resident() > 100 * MIB
    place = array.unsafe_buffer_pointer()
    written = jax.jit(lambda x: x.at[5].set(1.0), donate_argnums=0)(array)
    assert written.unsafe_buffer_pointer() == place
    assert np.asarray(written.sum(axis=1)).tolist() == [MIB / 4 if row == 5 else 0 for row in range(128)]
    assert (neighbour == 7.0).all()


def test_trimming_is_harmless():
    kept = np.arange(MIB)
    trim()
    assert (kept == np.arange(MIB)).all()
