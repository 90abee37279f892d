"""safetensors behind a URL: of every tensor only the ranges that are asked for are read, and each of them once."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from jaxserve.errors import ModelLoadError
from jaxserve.models.checkpoint import INDEX, StoredTensor, header_entry

WEIGHTS = "weights.url"
"""File of a local directory that stands for a remote one: JSON of the URL and its safetensors files."""
_CHUNK = 8 << 20
"""Bytes of a request."""
_AT_ONCE = 16
"""Requests on their way together."""


class RemoteFile:
    """One file of a bucket."""

    def __init__(self, store: ts.KvStore, url: str, name: str) -> None:
        self._store, self.name = store, name
        self.path = f"{url}/{name}"

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of some spans (first, behind the last), requested together.

        Raises:
            ModelLoadError: the file can't be read, or ends earlier.
        """
        try:
            futures = [self._store.read(self.name, byte_range=slice(*span)) for span in spans]
            found = [future.result().value for future in futures]
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelLoadError(f"{self.path} can't be read: {str(error).splitlines()[0]}.") from None
        if any(len(part) != stop - start for part, (start, stop) in zip(found, spans, strict=True)):
            raise ModelLoadError(f"{self.path} is truncated.")
        return found


@dataclass(frozen=True)
class RemoteTensor(StoredTensor):
    """A tensor of a remote file."""

    file: RemoteFile

    def view(self) -> NDArray[Any]:
        """The tensor as an array of which nothing is there until `fetch` has been told which part is wanted."""
        return _memory(self).array

    def fetch(self, part: NDArray[Any]) -> bool:
        """Read what a part of `view` covers; a part that is a copy of it must be made anew."""
        _memory(self).fill(part)
        return True


class _Memory:
    """Address space for a whole tensor; only what has been read of it takes memory."""

    def __init__(self, tensor: RemoteTensor) -> None:
        self._tensor = tensor
        self._size = int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize
        self._bytes = np.frombuffer(mmap.mmap(-1, max(self._size, 1)), np.uint8)
        self.array = self._bytes[: self._size].view(tensor.dtype).reshape(tensor.shape)
        self._there = np.zeros(-(-self._size // _CHUNK), bool)

    def fill(self, part: NDArray[Any]) -> None:
        """Read the chunks that hold the part and aren't there yet; all of them where it is no view."""
        start, stop = 0, self._size
        if part.size and np.may_share_memory(part, self._bytes):
            begin = self._bytes.__array_interface__["data"][0]
            start, stop = (bound - begin for bound in np.lib.array_utils.byte_bounds(part))
        chunks = [chunk for chunk in range(start // _CHUNK, -(-stop // _CHUNK)) if not self._there[chunk]]
        for at in range(0, len(chunks), _AT_ONCE):
            self._read(chunks[at : at + _AT_ONCE])

    def _read(self, chunks: Sequence[int]) -> None:
        spans = [(chunk * _CHUNK, min((chunk + 1) * _CHUNK, self._size)) for chunk in chunks]
        first = self._tensor.offset
        parts = self._tensor.file.ranges([(first + start, first + stop) for start, stop in spans])
        for (start, stop), part in zip(spans, parts, strict=True):
            self._bytes[start:stop] = np.frombuffer(part, np.uint8)
        self._there[list(chunks)] = True


@lru_cache(maxsize=4)
def _memory(tensor: RemoteTensor) -> _Memory:
    """Shards of a parameter, and parts of one tensor, are read soon after each other: four tensors are kept."""
    return _Memory(tensor)


def is_remote(model_dir: Path) -> bool:
    """Whether a local directory stands for a remote one in hub layout."""
    return (model_dir / WEIGHTS).is_file()


def write_remote(model_dir: Path, url: str, files: Sequence[str]) -> None:
    """Let the directory's parameters be those of these safetensors files."""
    (model_dir / WEIGHTS).write_text(json.dumps({"url": url, "files": list(files)}), encoding="utf-8")


def open_remote(model_dir: Path) -> dict[str, StoredTensor]:
    """All tensors by name; only headers are read.

    Raises:
        ModelLoadError: a file is missing or damaged.
    """
    told = json.loads((model_dir / WEIGHTS).read_text(encoding="utf-8"))
    store = ts.KvStore.open(told["url"] + "/").result()
    tensors: dict[str, StoredTensor] = {}
    for name in _wanted(model_dir, told["files"]):
        for tensor in _header(RemoteFile(store, told["url"], name)):
            if tensor.name in tensors:
                raise ModelLoadError(f"{tensor.path} repeats tensor {tensor.name}.")
            tensors[tensor.name] = tensor
    return tensors


def _wanted(model_dir: Path, files: Sequence[str]) -> list[str]:
    """The files of the index where there is one, else model.safetensors alone, else all."""
    index = model_dir / INDEX
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelLoadError(f"{index.name} is not a readable safetensors index.") from None
        if missing := sorted(named - set(files)):
            raise ModelLoadError(f"{index.name} names {missing[0]!r}, which isn't there.")
        return sorted(named)
    return ["model.safetensors"] if "model.safetensors" in files else sorted(files)


def _header(file: RemoteFile) -> list[RemoteTensor]:
    (length,) = file.ranges([(0, 8)])
    size = int.from_bytes(length, "little")
    if size > 100 << 20:
        raise ModelLoadError(f"{file.path} is not a safetensors file.")
    (content,) = file.ranges([(8, 8 + size)])
    try:
        header = json.loads(content)
        header.pop("__metadata__", None)
        entries = [header_entry(Path(file.path), name, entry, 8 + size) for name, entry in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelLoadError(f"{file.path} is not a readable safetensors file.") from None
    return [RemoteTensor(**vars(entry), file=file) for entry in entries]
