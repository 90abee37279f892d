"""Where an image's patches belong: on the host, from the size of its grid alone.

Patches arrive ordered by the embeddings they become, row by row. A tower with windows reads them window by window, so
that attention within windows is attention among neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxserve.models.vision.spec import VisionSpec

Int32 = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """The patches of one image in the order in which the tower reads them."""

    order_P: Int32
    """Which of the arriving patches each is."""
    rows_P: Int32
    columns_P: Int32
    windows_P: Int32
    """Number of its window."""
    embeddings_M: Int32
    """Which of the tower's embeddings each of the image's, row by row, is."""


def patch_grid(spec: VisionSpec, rows: int, columns: int) -> PatchGrid:
    """The order of a grid of patches, whose sides are multiples of `spec.merge`."""
    merge = spec.merge
    units_U2 = np.stack(np.divmod(np.arange(rows * columns // merge**2), columns // merge), axis=-1)
    side = spec.window // merge if spec.window else max(rows, columns)
    across = -(-(columns // merge) // side)
    windows_U = (units_U2[:, 0] // side) * across + units_U2[:, 1] // side
    order_U = np.argsort(windows_U, kind="stable")
    within_2 = np.stack(np.divmod(np.arange(merge**2), merge), axis=-1)
    places_P2 = (units_U2[order_U, None] * merge + within_2).reshape(-1, 2)
    return PatchGrid(
        order_P=(order_U[:, None] * merge**2 + np.arange(merge**2)).reshape(-1).astype(np.int32),
        rows_P=places_P2[:, 0].astype(np.int32),
        columns_P=places_P2[:, 1].astype(np.int32),
        windows_P=np.repeat(windows_U[order_U], merge**2).astype(np.int32),
        embeddings_M=np.argsort(order_U, kind="stable").astype(np.int32),
    )


def rotary_positions(length: int, images: Sequence[tuple[int, int, int]], merge: int) -> tuple[Int32, int]:
    """Positions on the axes time, row and column of a prompt's tokens (Qwen2-VL, 2024).

    Text counts on all axes alike. An image's tokens share one time; their rows and columns count from there, and the
    text after it goes on behind the larger of both.

    Args:
        length: tokens of the prompt.
        images: (first token, rows of patches, columns of patches) of each image, ascending.
        merge: side of the square of patches that become one token.

    Returns:
        int32 [3, length], and what must be added to the position of every later token.
    """
    positions_3T = np.empty((3, length), np.int32)
    token = position = 0
    for start, rows, columns in (*images, (length, 0, 0)):
        positions_3T[:, token:start] = position + np.arange(start - token)
        position += start - token
        grid = (1, rows // merge, columns // merge)
        count = grid[1] * grid[2]
        positions_3T[:, start : start + count] = position + np.indices(grid).reshape(3, -1)
        token, position = start + count, position + max(grid[1:])
    return positions_3T, position - length
