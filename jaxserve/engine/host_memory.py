"""Memory of the host that nobody uses goes back to the system: untouched KV pages, and what compiling left behind."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from contextlib import suppress

import jax

_DONT_NEED = 4
"""MADV_DONTNEED: private pages are dropped, and read as zeros when they are touched next (madvise(2))."""


def drop_zeros(arrays: Iterable[jax.Array]) -> None:
    """Drops the memory of arrays in the host's memory that hold nothing but zeros, which they still do afterwards.

    XLA fills an array of zeros by writing, and so makes all of it resident; pages of a KV cache that no sequence ever
    uses should cost nothing. Nothing happens where the system has no such call, or for arrays on other devices.
    """
    libc = _libc()
    if libc is None or not hasattr(libc, "madvise"):
        return
    for array in arrays:
        for shard in array.block_until_ready().addressable_shards:
            if shard.device.platform == "cpu":
                _drop(libc, shard.data.unsafe_buffer_pointer(), shard.data.nbytes)


def trim() -> None:
    """Gives back what was freed: compiling leaves hundreds of megabytes in the allocator's lists (malloc_trim(3))."""
    libc = _libc()
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _drop(libc: ctypes.CDLL, address: int, size: int) -> None:
    """Whole pages only: what else lies on the first and the last is not ours."""
    first, end = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _DONT_NEED)


def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    with suppress(OSError):
        return ctypes.CDLL(None)
    return None
