"""A number of tokens before which an output may not end, on top of whatever else constrains it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxserve.text.grammar.matcher import forbid

Int32 = npt.NDArray[np.int32]


class AtLeast:
    """The engine's `TokenConstraint` of one sequence that has to become so long.

    Args:
        tokens: number of tokens before which it may not end.
        ends: tokens that end it. They may come where the other constraint allows nothing else.
        other: the `TokenConstraint` of whatever constrains the sequence beside.
    """

    def __init__(self, tokens: int, ends: Sequence[int], other: Any) -> None:
        self._tokens = tokens
        self._taken = 0
        self._ends = tuple(ends)
        self._other = other

    @property
    def constrains(self) -> bool:
        """See `TokenConstraint`; as long as the end is held back, each row has to be written."""
        return self._taken < self._tokens or bool(self._other.constrains)

    @property
    def stands(self) -> bool:
        """See `TokenConstraint`."""
        return bool(self._other.stands)

    def prepare(self, row: Int32) -> Any:
        """See `TokenConstraint`."""
        asked = self._other.prepare(row)
        if asked is None:
            self._hold_back(row)
        return asked

    def complete(self, row: Int32) -> None:
        """See `TokenConstraint`."""
        self._other.complete(row)
        self._hold_back(row)

    def _hold_back(self, row: Int32) -> None:
        if self._taken < self._tokens:
            forbid_if_others(row, self._ends)

    def advance(self, token: int) -> None:
        """See `TokenConstraint`."""
        self._taken += 1
        self._other.advance(token)

    def fork(self) -> AtLeast:
        """A copy, to follow drafts."""
        forked = copy(self)
        forked._other = self._other.fork()
        return forked

    @property
    def forced(self) -> tuple[int, ...]:
        """See `TokenConstraint`."""
        found: tuple[int, ...] = self._other.forced
        return found


def forbid_if_others(row: Int32, tokens: Iterable[int]) -> None:
    """Takes tokens out of a mask, unless nothing would be left."""
    left = row.copy()
    forbid(left, tokens)
    if left.any():
        row[:] = left
