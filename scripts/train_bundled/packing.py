"""Packs documents into rows of one length: whole documents, best fit, the rest padding."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable

import numpy as np

PADDING = -1
_WINDOW = 2000


def pack(documents: Iterable[list[int]], length: int, seed: int) -> np.ndarray:
    """Rows [N, length + 1] of token ids in random order; documents that do not fit are cut at the end of a row.

    One more than `length`, because the last token is only ever a target.
    """
    rows: list[list[int]] = []
    window: list[list[int]] = []
    for document in documents:
        window.append(document[: length + 1])
        if len(window) == _WINDOW:
            rows += _best_fit(window, length + 1)
            window = []
    rows += _best_fit(window, length + 1)
    random.Random(seed).shuffle(rows)
    packed = np.full((len(rows), length + 1), PADDING, np.int32)
    for packed_row, row in zip(packed, rows, strict=True):
        packed_row[: len(row)] = row
    return packed


def _best_fit(documents: list[list[int]], length: int) -> list[list[int]]:
    """Longest document first, each into the fullest row that still has room."""
    rooms: list[tuple[int, int]] = []  # (room left, row), ascending
    rows: list[list[int]] = []
    for document in sorted(documents, key=len, reverse=True):
        at = bisect.bisect_left(rooms, (len(document), -1))
        if at == len(rooms):
            rows.append(list(document))
            room, row = length - len(document), len(rows) - 1
        else:
            room, row = rooms.pop(at)
            rows[row] += document
            room -= len(document)
        if room:
            bisect.insort(rooms, (room, row))
    return rows
