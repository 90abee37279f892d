"""The header of a GGUF file: fields and tensors, read in one pass (ggml's docs/gguf.md, versions 2 and 3).

The package `gguf` makes NumPy arrays of every string of a vocabulary: 20 to 70 s a file, where this takes 0.1 to 0.4.
Types of blocks and their sizes are the package's.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxserve.errors import ModelLoadError

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""Type of a field -> its code in `struct`."""
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: where its blocks are."""

    name: str
    path: Path
    offset: int
    """First byte in the file."""
    shape: tuple[int, ...]
    """Of the numbers, the innermost axis last."""
    kind: str
    """Name of its type: 'F32', 'Q4_K' ..."""
    num_bytes: int

    def view(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        """The bytes of the tensor, over the memory-mapped file."""
        return np.memmap(self.path, dtype=np.uint8, mode="r", offset=self.offset, shape=(self.num_bytes,))


@dataclass(frozen=True)
class GgufFile:
    """What the header of a file says, or of a set of split ones."""

    path: Path
    """The first."""
    fields: Mapping[str, Any]
    """Numbers, booleans, strings; lists of strings, arrays of numbers."""
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """`general.architecture`: what its other fields begin with."""
        return str(self.fields.get("general.architecture", ""))

    def field(self, name: str) -> Any:
        """A field of the architecture ('block_count'), or None."""
        return self.fields.get(f"{self.architecture}.{name}")


def split_files(path: Path) -> list[Path]:
    """All files of the set that a path belongs to, in order; the path itself if it is whole."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    return [path.with_name(f"{match['stem']}-{number:05}-of-{match['count']}.gguf") for number in range(1, count + 1)]


def open_gguf(paths: Sequence[Path]) -> GgufFile:
    """Read the headers of a file, or of a set of split ones, whose fields stand in the first.

    Raises:
        ModelLoadError: a file is missing, truncated, malformed or of another version.
    """
    files = [_read(path) for path in paths]
    tensors = {name: tensor for file in files for name, tensor in file.tensors.items()}
    promised = files[0].fields.get("split.tensors.count", len(tensors))
    if len(tensors) != sum(len(file.tensors) for file in files) or len(tensors) != promised:
        raise ModelLoadError(f"The files of {paths[0]} don't belong together: {len(tensors)} of {promised} tensors.")
    return GgufFile(paths[0], files[0].fields, tensors)


def _read(path: Path) -> GgufFile:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).file()
    except FileNotFoundError:
        raise ModelLoadError(f"{path} is missing.") from None
    except (OSError, ValueError, struct.error, KeyError, OverflowError, MemoryError, RecursionError):
        raise ModelLoadError(f"{path} is truncated or not a readable GGUF file.") from None


class _Reader:
    """Reads values one after the other; what lies beyond the end of the file raises."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0

    def file(self) -> GgufFile:
        if self._take(4) != _MAGIC:
            raise ValueError("no GGUF file")
        version = self._number("I")
        if version not in _VERSIONS:
            raise ModelLoadError(f"{self._path} is of GGUF version {version}; versions 2 and 3 can be read.")
        num_tensors, num_fields = self._number("Q"), self._number("Q")
        fields = {self._string(): self._value(self._number("I")) for _ in range(num_fields)}
        infos = [self._tensor() for _ in range(num_tensors)]
        alignment = int(fields.get("general.alignment", 32))
        start = -(-self._at // alignment) * alignment
        tensors = [self._placed(start, *info) for info in infos]
        return GgufFile(self._path, fields, {tensor.name: tensor for tensor in tensors})

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise ValueError("beyond the end")
        self._at += count
        return taken

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _string(self) -> str:
        return self._take(self._number("Q")).decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        return self._array() if kind == _ARRAY else self._number(_SCALARS[kind])

    def _array(self) -> Any:
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            return self._strings(count)
        if kind == _ARRAY:
            return [self._array() for _ in range(count)]
        dtype = np.dtype(f"<{_SCALARS[kind]}")
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _strings(self, count: int) -> list[str]:
        """As many `_string`s: a vocabulary's, whose 100,000 take 0.05 s so and 0.4 one by one."""
        strings, at, length_at = [], self._at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            first = at + 8
            at = first + length_at(self._data, at)[0]
            strings.append(self._data[first:at].decode("utf-8", "replace"))
        if at > len(self._data):
            raise ValueError("beyond the end")
        self._at = at
        return strings

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError("too many dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return name, shape[::-1], self._number("I"), self._number("Q")

    def _placed(self, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            known = GGMLQuantizationType(kind)
        except ValueError:
            raise ModelLoadError(f"{self._path}: tensor {name} is of type {kind}, which isn't known.") from None
        block, size = GGML_QUANT_SIZES[known]
        if not shape or shape[-1] % block:
            raise ValueError("rows must be whole blocks")
        count = 1
        for length in shape:
            count *= length
        num_bytes = count // block * size
        if start + offset + num_bytes > len(self._data):
            raise ValueError("beyond the end")
        return GgufTensor(name, self._path, start + offset, shape, known.name, num_bytes)
