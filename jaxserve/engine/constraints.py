"""Which tokens a sequence may continue with: grammars, forced reasoning ends. Host side, beside the forward pass.

A constraint follows the committed tokens, so the mask of step N+1 is known only when step N has been read. The engine
therefore launches the forward pass of N+1 first, then reads N, and the mask is made while the device computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from jaxserve.engine.types import Plan, Sequence

_log = logging.getLogger(__name__)

ALL_ALLOWED = np.int32(-1)


class TokenConstraint(Protocol):
    """State of one sequence's constraint."""

    def fill(self, row: npt.NDArray[np.int32]) -> None:
        """Writes the allowed next tokens (bit i % 32 of word i // 32 = token i); the row comes all allowed."""

    def advance(self, token: int) -> None:
        """Takes the token the sequence continued with."""


class Constraints:
    """The constraints of all sequences that have one, made when first needed and gone with their sequence.

    Args:
        words: int32 words of one mask row, ceil(V / 32).
        on_failure: told when a constraint raised; its sequence must then be ended.
    """

    def __init__(self, words: int, on_failure: Callable[[Sequence, Exception], None]) -> None:
        self._words = words
        self._on_failure = on_failure
        self._states: WeakKeyDictionary[Sequence, TokenConstraint] = WeakKeyDictionary()

    def masks(self, plan: Plan, rows: int) -> npt.NDArray[np.int32]:
        """Masks for a step, [rows, words], aligned with the plan's rows; unconstrained rows allow everything."""
        masks = np.full((rows, self._words), ALL_ALLOWED, np.int32)
        for index, row in enumerate(plan.rows):
            if row.samples and row.sequence.request.constraint is not None and row.sequence.finish_reason is None:
                try:
                    self._state(row.sequence).fill(masks[index])
                except Exception as error:  # noqa: BLE001 - a broken grammar must not reach the other requests
                    self._fail(row.sequence, error)
        return masks

    def advance(self, sequence: Sequence, token: int) -> None:
        """Follows a committed token."""
        if sequence.request.constraint is not None and sequence.finish_reason is None:
            try:
                self._state(sequence).advance(token)
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(sequence, error)

    def _state(self, sequence: Sequence) -> TokenConstraint:
        state = self._states.get(sequence)
        if state is None:
            make = sequence.request.constraint
            if make is None:
                raise ValueError(f"request {sequence.request.id} has no constraint")
            state = self._states[sequence] = make()
        return state

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        _log.exception("the constraint of request %s failed", sequence.request.id, exc_info=error)
        self._on_failure(sequence, error)


def constrained(plan: Plan) -> bool:
    """Whether sampling this step has to wait for the step before it."""
    return any(row.samples and row.sequence.request.constraint is not None for row in plan.rows)
