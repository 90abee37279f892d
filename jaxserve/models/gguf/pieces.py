"""The numbers of a GGUF file's tensors, dequantised row by row while parameters are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from jaxserve.errors import ModelLoadError
from jaxserve.models.checkpoint import StoredTensor
from jaxserve.models.config import LatentSpec, ModelConfig
from jaxserve.models.family import Cut, Source
from jaxserve.models.gguf.codes import Coded, hold_blocks
from jaxserve.models.gguf.file import GgufFile, GgufTensor
from jaxserve.models.gguf.names import STORAGE, Storage
from jaxserve.models.sources import Piece, Pieces, Readable, listed

if TYPE_CHECKING:
    from jaxserve.models.model import Blueprint, Leaf, LeafKey

_PLAIN: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype(np.float64),
}
BLOCKS = (
    *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ4_NL", "IQ4_XS", "MXFP4"),
)
"""Types of blocks that can be read."""
_TILE_BYTES = 32 << 20
"""float32 numbers that are made at a time."""


def numbers(tensor: GgufTensor) -> NDArray[np.float32]:
    """All numbers of a tensor, float32."""
    out = np.empty(tensor.shape, np.float32)
    _piece(tensor, None, None, 0.0).read((slice(None),) * len(tensor.shape), out)
    return out


@dataclass(frozen=True)
class Blocks:
    """A tensor [..., out, in] stored as blocks of numbers along its rows."""

    tensor: GgufTensor
    rows: NDArray[np.int64] | None = None
    """Which rows the parameter has, in its order; None = all of them. Of matrices only."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        shape = self.tensor.shape
        return shape if self.rows is None else (len(self.rows), *shape[1:])

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Dequantise a part into `out`, converted to its type."""
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType[self.tensor.kind]
        block, size = block_size(self.tensor.kind)
        *lead, last = index
        start, stop, _ = last.indices(self.shape[-1])
        first = start // block
        columns = slice(first * size, -(-stop // block) * size)
        for place, raw in self._tiles(tuple(lead)):
            tile = dequantize(np.ascontiguousarray(raw[..., columns]), kind)
            out[place] = tile[..., start - first * block : stop - first * block]

    def _tiles(self, lead: tuple[slice, ...]) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """Places along the first axis of a part, and the bytes of their rows."""
        raw = self.tensor.view().reshape(*self.tensor.shape[:-1], -1)
        begin, end, _ = lead[0].indices(self.shape[0])
        row = int(np.prod(self.shape[1:])) * 4
        step = max(1, _TILE_BYTES // row)
        for at in range(begin, end, step):
            some = slice(at, min(at + step, end))
            picked = raw[some] if self.rows is None else raw[self.rows[some]]
            yield slice(at - begin, some.stop - begin), picked[(slice(None), *lead[1:])]


def block_size(kind: str) -> tuple[int, int]:
    """Numbers and bytes of a block."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(block), int(size)


@dataclass(frozen=True)
class Shifted:
    """A parameter that the converter added a number to."""

    piece: Piece
    added: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the result."""
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        return self.piece.shape

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part into `out`, the number taken away again (in float32, exactly)."""
        part = np.empty(out.shape, np.float32)
        self.piece.read(index, part)
        out[...] = part - np.float32(self.added)


@dataclass(frozen=True)
class KeysAndValues:
    """kv_b [heads * (nope + value), rank] of latent attention, of two: keys [heads, rank, nope] and values."""

    keys: Readable
    values: Readable
    spec: LatentSpec

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        spec = self.spec
        return spec.num_heads * (spec.nope_dim + spec.value_dim), spec.kv_rank

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part into `out`, converted to its type."""
        spec, whole = self.spec, (slice(None),) * 3
        keys = np.empty((spec.num_heads, spec.kv_rank, spec.nope_dim), np.float32)
        values = np.empty((spec.num_heads, spec.value_dim, spec.kv_rank), np.float32)
        self.keys.read(whole, keys)
        self.values.read(whole, values)
        out[...] = np.concatenate([keys.swapaxes(1, 2), values], axis=1).reshape(self.shape)[index]


def match_gguf(plan: Blueprint, file: GgufFile) -> list[Pieces]:
    """What each leaf of the plan is read from, in its order; everything is checked before anything is read.

    Raises:
        ModelLoadError: tensors are missing, left over, of another shape or of a type that can't be read.
    """
    storage = STORAGE[file.architecture]
    wanted: set[str] = set()
    coded = {key for name, layers in plan.coded() for key in ((name, layers), (f"{name}_scale", layers))}
    pieces = [_match(leaf, plan.config, storage, file, wanted, coded) for leaf in plan.leaves]
    missing = sorted(wanted - file.tensors.keys())
    if missing:
        raise ModelLoadError(f"{file.path} lacks {listed(missing)}.")
    ignored = [re.compile(pattern) for pattern in (*storage.ignored, *_later_layers(plan.config))]
    surplus = sorted(name for name in file.tensors.keys() - wanted if not any(p.search(name) for p in ignored))
    if surplus:
        raise ModelLoadError(f"{file.path} holds {listed(surplus)} that its architecture has no use for here.")
    return pieces


def _later_layers(config: ModelConfig) -> Iterator[str]:
    """Layers after the last (multi-token prediction) are left out."""
    served = "|".join(map(str, range(config.num_layers)))
    yield rf"^blk\.(?!(?:{served})\.)\d+\."


def hold_as_stored(config: ModelConfig, file: GgufFile) -> ModelConfig:
    """The configuration of the model in a file with its blocks held as they are, where they can be."""
    storage = STORAGE[file.architecture]

    def tensor_of(name: str, layer: int) -> GgufTensor | None:
        return file.tensors.get(_source(storage, name)[1].format(layer=layer))

    return hold_blocks(config, tensor_of)


def _source(storage: Storage, name: str) -> tuple[Cut | None, str]:
    source = storage.names[name]
    return (source.cut, source.name) if isinstance(source, Source) else (None, source)


def _coded(tensor: GgufTensor, cut: Cut | None, config: ModelConfig, part: Literal["codes", "scales"]) -> Coded:
    rows = None if cut is None else _rows(tensor, cut, config)
    return Coded(tensor, rows, part, block_size(tensor.kind)[1])


def _match(
    leaf: Leaf, config: ModelConfig, storage: Storage, file: GgufFile, wanted: set[str], coded: Set[LeafKey]
) -> Pieces:
    """The leaf's pieces; `wanted` learns their names. What is missing is left out. `coded` are codes and scales."""
    part: Literal["codes", "scales"] = "scales" if leaf.name.endswith("_scale") else "codes"
    cut, pattern = _source(storage, leaf.name.removesuffix("_scale"))
    lead: tuple[int, ...] = (leaf.value.shape[0],) if leaf.stacked else ()
    expected = leaf.value.shape[len(lead) :]
    added = storage.added_to_norms if leaf.name.endswith("norm.weight") else 0.0
    pieces: list[Readable] = []
    for layer in leaf.layers or (0,):
        name = pattern.format(layer=layer)
        if name not in file.tensors and (both := _keys_and_values(name, layer, config, file)) is not None:
            wanted.update(name.replace("kv_b", part) for part in ("k_b", "v_b"))
            pieces.append(both)
            continue
        wanted.add(name)
        if name in file.tensors and leaf.key in coded:
            coded_piece = _coded(file.tensors[name], cut, config, part)
            pieces.append(_checked(coded_piece, file.tensors[name], leaf, expected))
        elif name in file.tensors:
            pieces.append(_checked(_piece(file.tensors[name], cut, config, added), file.tensors[name], leaf, expected))
    return Pieces(lead, tuple(pieces))


def _keys_and_values(name: str, layer: int, config: ModelConfig, file: GgufFile) -> KeysAndValues | None:
    keys, values = (file.tensors.get(name.replace("kv_b", part)) for part in ("k_b", "v_b"))
    spec = config.layers[layer].attention
    if "kv_b" not in name or keys is None or values is None or not isinstance(spec, LatentSpec):
        return None
    return KeysAndValues(_piece(keys, None, config, 0.0), _piece(values, None, config, 0.0), spec)


def _checked(piece: Any, tensor: GgufTensor, leaf: Leaf, expected: tuple[int, ...]) -> Readable:
    if piece.shape != expected:
        raise ModelLoadError(
            f"{tensor.path}: {tensor.name} gives {leaf.name} the shape {list(piece.shape)}, the file's fields want "
            f"{list(expected)}."
        )
    readable: Readable = piece
    return readable


def _piece(tensor: GgufTensor, cut: Cut | None, config: ModelConfig | None, added: float) -> Any:
    """How a tensor, or the rows of it that `cut` picks, are read."""
    if tensor.kind in BLOCKS:
        return Blocks(tensor, None if cut is None else _rows(tensor, cut, config))
    if tensor.kind not in _PLAIN:
        known = ", ".join((*_PLAIN, *BLOCKS))
        raise ModelLoadError(f"{tensor.path}: {tensor.name} is of type {tensor.kind}, not one of {known}.")
    stored = StoredTensor(tensor.name, tensor.path, tensor.offset, tensor.shape, _PLAIN[tensor.kind])
    plain = Piece(stored, cut, config)  # type: ignore[arg-type]
    return Shifted(plain, added) if added else plain


def _rows(tensor: GgufTensor, cut: Cut, config: ModelConfig | None) -> NDArray[np.int64]:
    """The rows that a cut picks, found by cutting a column of row numbers."""
    return cut(np.arange(tensor.shape[0])[:, None], config)[:, 0]  # type: ignore[arg-type]
