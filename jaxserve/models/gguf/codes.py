"""Blocks of a GGUF file as codes with a scale, and perhaps an offset, for each 16 or 32 inputs: the same numbers.

The scales of K-quants are products of a float16 and 6 bits, exact in float32. What blocks look like is written in the
ggml project's `ggml-common.h`; the tests compare with the package `gguf`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaxserve.models.config import AttentionSpec, LayerSpec, MlpSpec, ModelConfig, WeightFormat
from jaxserve.models.gguf.file import GgufTensor
from jaxserve.models.tiles import TILE, code_shape, scale_shape, tile_codes, tile_scales

_FOUR = np.uint8(4)
"""Bits of a half byte."""
Raw = NDArray[np.uint8]
"""[rows, blocks, bytes]."""
_TILE_BYTES = 8 << 20
"""Codes that are unpacked at a time."""
_HALF, _WIDE = WeightFormat("int8", 32, "float16", tiled=True), WeightFormat("int8", 32, tiled=True)
_LATTICE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the codes of IQ4_NL mean."""
_DOUBLED_FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


@dataclass(frozen=True)
class Blocks:
    """A type of blocks."""

    format: WeightFormat
    codes: Callable[[Raw], NDArray[Any]]
    """[rows, blocks, bytes] -> uint8 or int8, as the format says, [rows, inputs] once reshaped."""
    factors: Callable[[Raw], Sequence[NDArray[Any]]]
    """-> scales, and offsets if the format has them, [rows, groups] once reshaped."""


def _halves(raw: Raw, first: int, count: int = 1) -> NDArray[np.float16]:
    """`count` numbers of float16 from a byte on, [rows, blocks, count]."""
    return np.ascontiguousarray(raw[..., first : first + 2 * count]).view(np.float16)


def _nibbles(raw: Raw) -> Raw:
    """The low halves of 16 bytes, then their high halves."""
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def _fives(raw: Raw, first: int) -> Raw:
    """32 codes of five bits: the highest of each in four bytes, then the others."""
    highest = np.unpackbits(np.ascontiguousarray(raw[..., first : first + 4]), axis=-1, bitorder="little")
    return _nibbles(raw[..., first + 4 :]) | highest << _FOUR


def _signed(codes: Raw, zero: int) -> NDArray[np.int8]:
    return codes.view(np.int8) - np.int8(zero)


def _k_factors(raw: Raw) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Q4_K's and Q5_K's: two float16, then eight scales and eight minima of 6 bits in 12 bytes."""
    low, high, both = raw[..., 4:8], raw[..., 8:12], raw[..., 12:16]
    scale = np.concatenate([low & 63, (both & 15) | (low >> 2 & 48)], axis=-1)
    least = np.concatenate([high & 63, (both >> 4) | (high >> 2 & 48)], axis=-1)
    wide = _halves(raw, 0, 2).astype(np.float32)
    return wide[..., 0:1] * scale, -wide[..., 1:2] * least


def _pairs_of_32(raw: Raw) -> Raw:
    """128 bytes of Q4_K and Q5_K: of each 32 the low halves, then the high ones."""
    parts = raw.reshape(*raw.shape[:-1], 4, 1, 32)
    return np.concatenate([parts & 15, parts >> 4], axis=-2).reshape(*raw.shape[:-1], 256)


def _q5_k(raw: Raw) -> NDArray[np.int8]:
    bits = np.arange(8, dtype=np.uint8)[:, None]
    highest = raw[..., None, 16:48] >> bits & 1
    return (_pairs_of_32(raw[..., 48:176]) | highest.reshape(*raw.shape[:-1], 256) << 4).view(np.int8)


def _q6_k(raw: Raw) -> NDArray[np.int8]:
    low = raw[..., :128].reshape(*raw.shape[:-1], 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=-2).reshape(*raw.shape[:-1], 256)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high: Raw = raw[..., 128:192].reshape(*raw.shape[:-1], 2, 1, 32) >> shifts & np.uint8(3)
    return _signed(low | high.reshape(*raw.shape[:-1], 256) << _FOUR, 32)


def _looked_up(table: Sequence[int], first: int) -> Callable[[Raw], NDArray[np.int8]]:
    numbers = np.array(table, np.int8)
    return lambda raw: np.take(numbers, _nibbles(raw[..., first:]))


_FOURS = WeightFormat("uint4", 32, "float16", offsets=True, tiled=True)
BLOCKS: Mapping[str, Blocks] = MappingProxyType(
    {
        "Q4_0": Blocks(_FOURS, lambda raw: _nibbles(raw[..., 2:]), lambda raw: (_halves(raw, 0), -8 * _halves(raw, 0))),
        "Q4_1": Blocks(_FOURS, lambda raw: _nibbles(raw[..., 4:]), lambda raw: (_halves(raw, 0), _halves(raw, 2))),
        "Q5_0": Blocks(_HALF, lambda raw: _signed(_fives(raw, 2), 16), lambda raw: (_halves(raw, 0),)),
        "Q5_1": Blocks(
            replace(_HALF, offsets=True),
            lambda raw: _fives(raw, 4).view(np.int8),
            lambda raw: (_halves(raw, 0), _halves(raw, 2)),
        ),
        "Q8_0": Blocks(_HALF, lambda raw: raw[..., 2:].view(np.int8), lambda raw: (_halves(raw, 0),)),
        "Q4_K": Blocks(replace(_FOURS, scale="float32"), lambda raw: _pairs_of_32(raw[..., 16:144]), _k_factors),
        "Q5_K": Blocks(replace(_WIDE, offsets=True), _q5_k, _k_factors),
        "Q6_K": Blocks(
            replace(_WIDE, block=16),
            _q6_k,
            lambda raw: (_halves(raw, 208).astype(np.float32) * raw[..., 192:208].view(np.int8),),
        ),
        "IQ4_NL": Blocks(_HALF, _looked_up(_LATTICE, 2), lambda raw: (_halves(raw, 0),)),
        "MXFP4": Blocks(
            _WIDE,
            _looked_up(_DOUBLED_FP4, 1),
            lambda raw: (np.ldexp(np.float32(1), raw[..., 0:1].astype(np.int32) - 128),),
        ),
    }
)
"""The types that are held as they are stored."""


_SHAPES = {"codes": code_shape, "scales": scale_shape}


@dataclass(frozen=True)
class Coded:
    """The codes, or the scales and offsets, of a matrix [out, in] in tiles; read whole."""

    tensor: GgufTensor
    rows: NDArray[np.int64] | None
    """Which rows the parameter has, in its order; None = all of them."""
    part: Literal["codes", "scales"]
    bytes_of_row: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type as held."""
        form = self._blocks.format
        if self.part == "scales":
            return np.dtype(form.scale)
        return np.dtype(np.uint8 if form.code == "uint4" else np.int8)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as held."""
        outputs = self.tensor.shape[0] if self.rows is None else len(self.rows)
        return _SHAPES[self.part]((outputs, self.tensor.shape[1]), self._blocks.format)

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Unpack into `out`, some tiles at a time.

        Raises:
            ValueError: a part is wanted; tiles are for arrays that are whole on their device.
        """
        if out.shape != self.shape:
            raise ValueError(f"{self.tensor.name} is read whole, not {index}")
        tiles = max(1, _TILE_BYTES // (self.tensor.shape[1] * TILE))
        for first in range(0, len(out), tiles):
            part = out[first : first + tiles]
            part[...] = self._unpacked(self._raw(slice(first * TILE, (first + tiles) * TILE)))

    def _raw(self, part: slice) -> Raw:
        raw = self.tensor.view().reshape(self.tensor.shape[0], -1, self.bytes_of_row)
        return raw[part] if self.rows is None else raw[self.rows[part]]

    def _unpacked(self, raw: Raw) -> NDArray[Any]:
        if self.part == "codes":
            return tile_codes(self._blocks.codes(raw).reshape(len(raw), -1), self._blocks.format)
        return tile_scales([np.asarray(part).reshape(len(raw), -1) for part in self._blocks.factors(raw)])

    @property
    def _blocks(self) -> Blocks:
        return BLOCKS[self.tensor.kind]


def hold_blocks(config: ModelConfig, tensor_of: Callable[[str, int], GgufTensor | None]) -> ModelConfig:
    """The configuration with all matrices held as blocks that can be.

    Args:
        config: nothing is quantised in it.
        tensor_of: the tensor that a parameter of a layer (or of none) is stored in, with all of its own or more rows.
    """

    def form(name: str, layer: int = 0) -> WeightFormat | None:
        tensor = tensor_of(name, layer)
        blocks = None if tensor is None or len(tensor.shape) != 2 else BLOCKS.get(tensor.kind)
        return blocks.format if blocks is not None else None

    def held(number: int, layer: LayerSpec) -> LayerSpec:
        found = {
            name: form(f"{name}.weight", number) for name, outputs in _projections(config, layer) if not outputs % TILE
        }
        return replace(layer, formats=tuple((name, held) for name, held in found.items() if held is not None))

    tables = config.vocab_size % TILE == 0
    return replace(
        config,
        layers=tuple(held(number, layer) for number, layer in enumerate(config.layers)),
        embed_weights=form("embed") if tables else None,
        head_weights=form("lm_head") if tables and not config.tie_embeddings else None,
    )


def _projections(config: ModelConfig, layer: LayerSpec) -> list[tuple[str, int]]:
    """Names and outputs of the layer's projections that only the matmul backend touches."""
    found: list[tuple[str, int]] = []
    spec, width = layer.attention, config.hidden_size
    if isinstance(spec, AttentionSpec):
        q_size, kv_size = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
        found += [("attention.q_proj", q_size), ("attention.k_proj", kv_size)]
        found += [("attention.v_proj", kv_size), ("attention.o_proj", width)]
    if isinstance(layer.mlp, MlpSpec):
        found += [(f"mlp.{name}_proj", layer.mlp.width) for name in ("gate", "up")] + [("mlp.down_proj", width)]
    return found


def has_blocks(config: ModelConfig) -> bool:
    """Whether `hold_blocks` found any."""
    formats = [form for layer in config.layers for _, form in layer.formats]
    return any(form is not None and form.tiled for form in (*formats, config.embed_weights, config.head_weights))
