"""Writes an orbax checkpoint leaf by leaf."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from numpy.typing import NDArray

_CHUNK_BYTES = 8 << 20
"""Largest piece that is read or written at once: a device reads no more than it needs, rounded up to such pieces."""
_BATCH_BYTES = 256 << 20
"""Leaves that are in memory at once while writing, unless one alone is larger."""
_BATCH_LEAVES = 64
"""Leaves that are written at once: each takes a thread."""


@dataclass(frozen=True)
class Unwritten:
    """A parameter that is made when its turn to be written comes."""

    nbytes: int
    ndim: int
    make: Callable[[], NDArray[Any]]


def write_store(directory: Path, leaves: dict[str, Unwritten], written: Callable[[int], None]) -> None:
    """Write an orbax checkpoint, holding `_BATCH_BYTES` of parameters (at least one) in memory at a time.

    Args:
        directory: must not exist; appears under this name when it is complete.
        leaves: the parameters by name.
        written: called with the bytes of every batch.
    """
    registry = ocp.type_handlers.create_type_handler_registry((Unwritten, _Batches(written)))
    save_args = {
        # Beyond matrices the first axis (experts, heads) is what devices share: no chunk spans two of it.
        name: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES, shard_axes=(0,) if leaf.ndim > 2 else ())
        for name, leaf in leaves.items()
    }
    with _quiet():
        handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(directory, args=ocp.args.PyTreeSave(leaves, save_args=save_args))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the log that no jax.Array can be written here, and errors that are raised as well."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class _Batches(ocp.type_handlers.TypeHandler):
    """How orbax writes `Unwritten`: as numpy arrays, batch after batch instead of all at once."""

    def __init__(self, written: Callable[[int], None]) -> None:
        self._arrays = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
        self._written = written

    def typestr(self) -> str:
        return str(self._arrays.typestr())

    async def serialize(
        self, values: Sequence[Unwritten], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(values)
        for batch in _batches([value.nbytes for value in values]):
            await self._write([values[i] for i in batch], [infos[i] for i in batch], [args[i] for i in batch])
            self._written(sum(values[i].nbytes for i in batch))
        return []

    async def _write(self, values: Sequence[Unwritten], infos: Sequence[Any], args: Sequence[Any]) -> None:
        """Make and write arrays, and wait for all of them."""
        # One call an array: when one fails, the others of a call are left behind, to fail in a closed event loop.
        futures = [
            future
            for value, info, arg in zip(values, infos, args, strict=True)
            for future in await self._arrays.serialize([value.make()], [info], [arg])
        ]
        results = await asyncio.gather(
            *(asyncio.to_thread(future.result) for future in futures), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def metadata(self, infos: Sequence[Any]) -> Sequence[Any]:
        found: Sequence[Any] = await self._arrays.metadata(infos)
        return found

    async def deserialize(self, infos: Sequence[Any], args: Sequence[Any] | None = None) -> Sequence[Any]:
        arrays: Sequence[Any] = await self._arrays.deserialize(infos, args)
        return arrays


def _batches(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Runs of at most `_BATCH_LEAVES` indices, of `_BATCH_BYTES` together; what is larger goes alone."""
    batch: list[int] = []
    for i, size in enumerate(sizes):
        if len(batch) == _BATCH_LEAVES or (batch and sum(sizes[j] for j in batch) + size > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
