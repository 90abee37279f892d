"""Weights that are held otherwise than they are stored: dequantised, or quantised, while they are read.

Nothing is held twice: rows are converted some at a time. Only the scales of what is quantised are kept until all shards
have been read, since a row's scale depends on all of its inputs and a shard may have some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxserve.models.config import ModelConfig, WeightFormat
from jaxserve.models.family import VISION
from jaxserve.models.model import Blueprint, Leaf
from jaxserve.models.quantization import dequantise_host, int8_codes, int8_scales, packed
from jaxserve.models.sources import Pieces, Readable

_TILE_BYTES = 32 << 20
"""float32 numbers that are converted at a time."""


@dataclass(frozen=True)
class Dequantised:
    """A weight [..., out, in] that is stored as codes and scales."""

    codes: Readable
    scales: Readable
    format: WeightFormat
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return np.dtype(np.float32)

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part into `out`, converted to its type."""
        for rows, place in _tiles(index, self.shape):
            out[place] = self._part((*rows, *index[len(rows) :]))

    def _part(self, index: tuple[slice, ...]) -> NDArray[np.float32]:
        """A part of whole blocks, cut to the inputs that are wanted."""
        form, inputs = self.format, self.shape[-1]
        start, stop, _ = index[-1].indices(inputs)
        block = form.block or inputs
        blocks = slice(start // block, -(-stop // block))
        begin, end = blocks.start * block, min(blocks.stop * block, inputs)
        spans = [_span(part, size) for part, size in zip(index[:-1], self.shape, strict=False)]
        lengths = [span.stop - span.start for span in spans]
        each = packed(form)
        codes = np.empty((*lengths, (end - begin) // each), self.codes.dtype)
        self.codes.read((*spans, slice(begin // each, end // each)), codes)
        last = () if form.block is None else (blocks,)
        scales = np.empty((*lengths, *(part.stop - part.start for part in last)), self.scales.dtype)
        self.scales.read((*spans, *last), scales)
        return dequantise_host(codes, scales, form)[..., start - begin : stop - begin]


@dataclass(frozen=True)
class Int8:
    """A weight [..., out, in], quantised with a scale per row; read as codes, or through `row_scales`."""

    weight: Readable
    shape: tuple[int, ...]
    _scales: list[NDArray[np.float32]] = field(default_factory=list, compare=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the codes."""
        return np.dtype(np.int8)

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part of the codes into `out`."""
        scales = self.scales()[index[:-1]]
        for rows, place in _tiles(index, self.shape):
            part = np.empty(out[place].shape, np.float32)
            self.weight.read((*rows, *index[len(rows) :]), part)
            out[place] = int8_codes(part, scales[place])

    def scales(self) -> NDArray[np.float32]:
        """The scale of each row, [..., out]; computed once."""
        if not self._scales:
            whole = (slice(None),) * len(self.shape)
            scales = np.empty(self.shape[:-1], np.float32)
            for rows, place in _tiles(whole, self.shape):
                part = np.empty((*scales[place].shape, self.shape[-1]), np.float32)
                self.weight.read((*rows, *whole[len(rows) :]), part)
                scales[place] = int8_scales(part)
            self._scales.append(scales)
        return self._scales[0]


@dataclass(frozen=True)
class Int8Scales:
    """The scales of an `Int8`."""

    codes: Int8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the scales."""
        return np.dtype(np.float32)

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part into `out`."""
        out[...] = self.codes.scales()[index]


def _span(part: slice, size: int) -> slice:
    start, stop, _ = part.indices(size)
    return slice(start, stop)


def _tiles(index: tuple[slice, ...], shape: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Cut a part of an array along its first axis: (slices of the array, slices of the part), of the leading axes."""
    spans = [_span(part, size) for part, size in zip(index, shape, strict=True)]
    row = int(np.prod([span.stop - span.start for span in spans[1:-1]], dtype=np.int64)) * shape[-1] * 4
    rows = max(1, _TILE_BYTES // max(row, 1))
    for first in range(spans[0].start, spans[0].stop, rows):
        last = min(first + rows, spans[0].stop)
        yield (slice(first, last),), (slice(first - spans[0].start, last - spans[0].start),)


def recode(plan: Blueprint, stored: Blueprint, pieces: Sequence[Pieces]) -> list[Pieces]:
    """What each leaf of `plan` is read from, made of what those of `stored` are read from.

    Args:
        plan: the model as it is to be held.
        stored: the same model, its layers unrolled, as it is stored.
        pieces: of the leaves of `stored`.
    """
    found = {_key(leaf.layers, leaf.name): found for leaf, found in zip(stored.leaves, pieces, strict=True)}
    kept = {key for key in found if _form(plan.config, key) == _form(stored.config, key) is not None}
    tower = None if stored.config.vision is None else stored.config.vision.weights
    made: dict[tuple[int | None, str], Int8] = {}

    def weight(layer: int | None, name: str, shape: tuple[int, ...]) -> Readable:
        codes, scales = found[layer, name], found.get((layer, f"{name}_scale"))
        form = tower if name.startswith(VISION) else _form(stored.config, (layer, name))
        return codes if scales is None or form is None else Dequantised(codes, scales, form, shape)

    def quantised(layer: int | None, name: str, shape: tuple[int, ...]) -> Int8:
        if (layer, name) not in made:
            made[layer, name] = Int8(weight(layer, name, shape), shape)
        return made[layer, name]

    def piece(leaf: Leaf, layer: int | None, shape: tuple[int, ...]) -> Readable:
        weight_name = leaf.name.removesuffix("_scale")
        if (layer, weight_name) in kept:
            return found[layer, leaf.name]
        if weight_name != leaf.name:
            return Int8Scales(quantised(layer, weight_name, _weight_shape(plan, leaf, weight_name)))
        return quantised(layer, leaf.name, shape) if leaf.key in coded else weight(layer, leaf.name, shape)

    coded = plan.coded()
    return [
        Pieces(
            leaf.value.shape[:1] if leaf.stacked else (),
            tuple(piece(leaf, layer, _own_shape(leaf)) for layer in leaf.layers or (None,)),
        )
        for leaf in plan.leaves
    ]


def _form(config: ModelConfig, key: tuple[int | None, str]) -> WeightFormat | None:
    """How a weight of a layer is held; None = plainly, or it is none of a layer."""
    layer, name = key
    if layer is None or name.startswith(VISION):
        return None
    spec, projection = config.layers[layer], name.removesuffix(".weight")
    return None if projection in spec.unquantised else dict(spec.formats).get(projection, spec.weights)


def _key(layers: tuple[int, ...] | None, name: str) -> tuple[int | None, str]:
    return (None if layers is None else layers[0]), name


def _own_shape(leaf: Leaf) -> tuple[int, ...]:
    """Shape of one layer's part."""
    shape = tuple(leaf.value.shape)
    return shape[1:] if leaf.stacked else shape


def _weight_shape(plan: Blueprint, scale: Leaf, name: str) -> tuple[int, ...]:
    """Shape of the codes that belong to scales."""
    return next(_own_shape(leaf) for leaf in plan.leaves if leaf.key == (name, scale.layers))
