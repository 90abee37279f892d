"""Weights in tiles of 16 outputs side by side, as the CPU's kernels read them (`jaxserve.native`).

A weight [out, in] is `[out / 16, in, 16]` codes, four neighbouring inputs of an output together: so a vector of sums
belongs to as many outputs. Codes of 4 bits share bytes, of eight inputs the first four in the low halves. Scales are
`[out / 16, groups, 16]`; with offsets, each group's 16 scales are followed by its 16 offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxserve.models.config import WeightFormat

TILE = 16
FOUR = 4
"""Inputs of an output that lie side by side."""


def code_shape(shape: Sequence[int], form: WeightFormat) -> tuple[int, ...]:
    """Shape of the codes of a weight [..., out, in]."""
    *lead, outputs, inputs = shape
    return (*lead, outputs // TILE, inputs * TILE // packed(form))


def scale_shape(shape: Sequence[int], form: WeightFormat) -> tuple[int, ...]:
    """Shape of its scales and offsets."""
    *lead, outputs, inputs = shape
    return (*lead, outputs // TILE, inputs // group(form) * TILE * num_factors(form))


def tile_codes(codes: NDArray[Any], form: WeightFormat) -> NDArray[Any]:
    """Codes [out, in] as they are held."""
    fours = np.ascontiguousarray(codes).view(np.uint32)
    if packed(form) == 2:
        fours = fours[:, 0::2] | fours[:, 1::2] << np.uint32(4)
    tiles = np.ascontiguousarray(fours.reshape(len(codes) // TILE, TILE, -1).swapaxes(1, 2))
    return tiles.reshape(len(tiles), -1).view(codes.dtype)


def tile_scales(factors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Scales, or scales and offsets, [out, groups] each, as they are held."""
    rows, groups = factors[0].shape
    both = np.stack(factors, axis=-1).reshape(rows // TILE, TILE, groups, len(factors))
    return both.transpose(0, 2, 3, 1).reshape(rows // TILE, -1)


def packed(form: WeightFormat) -> int:
    """Codes in one element."""
    return 2 if form.code == "uint4" else 1


def num_factors(form: WeightFormat) -> int:
    """Scales alone, or scales and offsets."""
    return 2 if form.offsets else 1


def group(form: WeightFormat) -> int:
    """Neighbouring inputs that share a scale."""
    if form.block is None:
        raise ValueError("tiles have groups")
    return form.block
