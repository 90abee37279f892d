"""Which tokens a sequence may continue with: grammars, forced reasoning ends. Host side, beside the forward pass.

A constraint follows the committed tokens, so the mask of step N+1 is known only when step N has been read. The engine
launches the forward pass of N+1 first, then reads N, and makes the masks while the device computes.

Most constraints wait most of the time: for the end of the reasoning, for the marker that opens a call. A step whose
rows all wait is drawn at its launch, as a plain one, and nobody waits for the host. Should the token of step N turn
out to end the wait, the row's token of N+1 is drawn once more under its mask, before any later step has read it.
What is forbidden while a constraint waits (the end of the output, where an answer must follow) stands for every
position, and its mask goes with the launch.

A row with drafts needs a mask for each of its samples: a copy of its constraint follows the drafts. A draft
that it forbids can't be drawn, so what would come behind it is left open.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from jaxserve.engine.plan import Plan
from jaxserve.engine.sequence import Sequence
from jaxserve.engine.step_runner import Masks
from jaxserve.engine.token_constraint import TokenConstraint
from jaxserve.text.grammar.matcher import MaskFiller

_log = logging.getLogger(__name__)

ALL_ALLOWED = np.int32(-1)
MASK_THREADS = max(2, min(8, (os.cpu_count() or 2) // 2))
"""Threads that compute masks, beside the device's own work."""


class _Broken:
    """Stands for a constraint that could not be made: fails where a mask is due, when the step has been launched."""

    constrains = True
    stands = False
    forced = ()

    def __init__(self, error: Exception) -> None:
        self._error = error

    def prepare(self, row: npt.NDArray[np.int32]) -> Any:
        raise self._error

    complete = prepare

    def advance(self, token: int) -> None:
        raise self._error

    def fork(self) -> _Broken:
        return self


@dataclass
class _Row:
    """A planned row that has a constraint."""

    index: int
    sample: int
    """Its first sample."""
    sequence: Sequence
    drafts: tuple[int, ...]
    state: TokenConstraint
    """The sequence's own; a copy as soon as it follows drafts."""
    ahead: bool = False

    def follow(self, draft: int) -> bool:
        """Goes on by a draft; false where the constraint can't."""
        try:
            if not self.ahead:
                self.state, self.ahead = self.state.fork(), True
            self.state.advance(draft)
        except Exception:  # noqa: BLE001 - it counts when the draft has turned out to be right
            return False
        return True

    def rules(self) -> bool:
        """Whether the constraint rules at any of the row's samples, if all its drafts are right."""
        return self.state.constrains or any(self.follow(draft) and self.state.constrains for draft in self.drafts)


def _allows(mask: npt.NDArray[np.int32], token: int) -> bool:
    return bool(mask[token // 32] >> token % 32 & 1)


class SequenceConstraints:
    """The constraints of all sequences that have one, made when first needed and gone with their sequence.

    Args:
        words: int32 words of one mask row, ceil(V / 32).
        on_failure: told when a constraint raised; its sequence must then be ended.
    """

    def __init__(self, words: int, on_failure: Callable[[Sequence, Exception], None]) -> None:
        self._words = words
        self._on_failure = on_failure
        self._states: WeakKeyDictionary[Sequence, TokenConstraint] = WeakKeyDictionary()
        self._filler = MaskFiller(MASK_THREADS)

    def constraining(self, plan: Plan) -> frozenset[int]:
        """Indices of the plan's drawing rows whose constraint rules, as far as the committed tokens tell."""
        return frozenset(row.index for row in self._constrained(plan) if row.rules())

    def standing(self, plan: Plan) -> bool:
        """Whether some row needs a mask even while its constraint waits."""
        return any(row.state.stands for row in self._constrained(plan))

    def masks(self, plan: Plan, samples: int) -> Masks:
        """Masks for a step, [samples, words], in the order of its samples; unrestricted ones allow everything."""
        masks = np.full((samples, self._words), ALL_ALLOWED, np.int32)
        following, offset = self._constrained(plan), 0
        while following:
            lines = {row.sample + offset: row for row in following}
            failures = self._filler.fill([(line, row.state) for line, row in lines.items()], masks)
            for line, error in failures.items():
                if offset == 0:  # behind a draft it is told when the draft has turned out to be right
                    self._fail(lines[line].sequence, error)
            following = [
                row
                for line, row in lines.items()
                if line not in failures and offset < len(row.drafts) and _allows(masks[line], row.drafts[offset])
            ]
            following = [row for row in following if row.follow(row.drafts[offset])]
            offset += 1
        return masks

    def forced(self, sequence: Sequence) -> tuple[int, ...]:
        """The tokens that a sequence's constraint leaves no choice about, behind its committed output."""
        try:
            return self._state(sequence).forced
        except Exception:  # noqa: BLE001 - what is broken is told where a mask is due
            return ()

    def advance(self, sequence: Sequence, token: int) -> None:
        """Follows a committed token."""
        if sequence.request.constraint is not None and sequence.finish_reason is None:
            try:
                self._state(sequence).advance(token)
            except Exception as error:  # noqa: BLE001 - a broken grammar must not reach the other requests
                self._fail(sequence, error)

    def _constrained(self, plan: Plan) -> list[_Row]:
        """The plan's rows that draw tokens and have a constraint."""
        found, sample = [], 0
        for index, row in enumerate(plan.rows):
            sequence = row.sequence
            constrained = sequence.request.constraint is not None and sequence.finish_reason is None
            if row.samples and constrained and not row.void:
                found.append(_Row(index, sample, sequence, row.drafts, self._state(sequence)))
            sample += row.samples
        return found

    def _state(self, sequence: Sequence) -> TokenConstraint:
        state = self._states.get(sequence)
        if state is None:
            make = sequence.request.constraint
            if make is None:
                raise ValueError(f"request {sequence.request.id} has no constraint")
            try:
                state = make()
            except Exception as error:  # noqa: BLE001 - as above
                state = _Broken(error)
            self._states[sequence] = state
        return state

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        _log.exception("the constraint of request %s failed", sequence.request.id, exc_info=error)
        self._on_failure(sequence, error)
