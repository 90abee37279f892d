"""safetensors files as a table of tensors, read lazily from memory maps (format: huggingface.co/docs/safetensors)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from jaxserve.errors import ModelLoadError

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
INDEX = "model.safetensors.index.json"
"""Which file of several holds each tensor."""
_LARGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint; nothing is read until `view` is sliced."""

    name: str
    path: Path
    offset: int
    """First byte in the file."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def view(self) -> NDArray[Any]:
        """The tensor as a read-only array over the memory-mapped file."""
        count = math.prod(self.shape)
        if count == 0:
            return np.empty(self.shape, self.dtype)
        size = count * self.dtype.itemsize
        raw = np.memmap(self.path, dtype=np.uint8, mode="r", offset=self.offset, shape=(size,))
        return raw.view(self.dtype).reshape(self.shape)

    def fetch(self, part: NDArray[Any]) -> bool:
        """Make a part of `view` readable; whether that changed what it holds."""
        return False


def open_checkpoint(model_dir: Path) -> dict[str, StoredTensor]:
    """All tensors of a directory's safetensors files, by name: of the index where there is one, else of every file.

    Raises:
        ModelLoadError: no safetensors file, a file the index names is missing, or a file is truncated or malformed.
    """
    index = model_dir / INDEX
    if index.exists():
        return _indexed(model_dir, index)
    files = sorted(model_dir.glob("*.safetensors"))
    single = model_dir / "model.safetensors"
    if single in files:
        files = [single]
    if not files:
        raise ModelLoadError(f"{model_dir} has no *.safetensors file.")
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in _read_header(path):
            if tensor.name in tensors:
                raise ModelLoadError(f"{path} repeats tensor {tensor.name} of {tensors[tensor.name].path.name}.")
            tensors[tensor.name] = tensor
    return tensors


def _indexed(model_dir: Path, index: Path) -> dict[str, StoredTensor]:
    try:
        weight_map: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelLoadError(f"{index} is not a readable safetensors index.") from None
    files: dict[str, dict[str, StoredTensor]] = {}
    for name in sorted(set(map(str, weight_map.values()))):
        path = model_dir / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            raise ModelLoadError(f"{index.name} names {name!r}, which {model_dir} does not have.")
        files[name] = {tensor.name: tensor for tensor in _read_header(path)}
    tensors = {}
    for tensor_name, file in weight_map.items():
        if tensor_name not in files[file]:
            raise ModelLoadError(f"{index.name} places tensor {tensor_name} in {file}, which does not hold it.")
        tensors[tensor_name] = files[file][tensor_name]
    return tensors


def _read_header(path: Path) -> Iterable[StoredTensor]:
    """The tensors a file declares, checked against its size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise ModelLoadError(f"{path} is truncated or not a safetensors file.")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = [header_entry(path, name, entry, 8 + length) for name, entry in header.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelLoadError(f"{path} is not a readable safetensors file.") from None
    end = max((t.offset + math.prod(t.shape) * t.dtype.itemsize for t in tensors), default=0)
    if end > size:
        raise ModelLoadError(f"{path} is truncated: its header promises {end} bytes, the file has {size}.")
    return tensors


def header_entry(path: Path, name: str, entry: dict[str, Any], data: int) -> StoredTensor:
    """A tensor as a header declares it; `data` is where the file's numbers begin.

    Raises:
        ModelLoadError: its type is not known, or it does not fit its bytes.
        ValueError, KeyError, TypeError: the entry is malformed.
    """
    if entry["dtype"] not in _DTYPES:
        raise ModelLoadError(f"{path}: tensor {name} has the unsupported type {entry['dtype']}.")
    dtype = _DTYPES[entry["dtype"]]
    begin, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    if begin < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ModelLoadError(f"{path}: tensor {name} of shape {list(shape)} does not fit its {end - begin} bytes.")
    return StoredTensor(name, path, data + begin, shape, dtype)
