"""After a step that failed: which sequences to run again, and which of them has broken it.

All that ran goes back to the queue with the tokens it has, and comes in again one at a time: a step holds what has
proven itself since, and at most one sequence on trial. A step that fails with one on trial was broken by that one. One
that fails without is the beginning of another round; a sequence that was in `MAX_FAILURES` failed steps is given up, so
that rounds end.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from jaxserve.engine.plan import Advance
from jaxserve.engine.sequence import Sequence, SequenceState

MAX_FAILURES = 3
"""Failed steps after which a sequence is ended even if nothing says that it is the one."""


class Recovery:
    """The sequences that may have broken a step."""

    def __init__(self) -> None:
        self._suspects: set[Sequence] = set()
        self._failures: WeakKeyDictionary[Sequence, int] = WeakKeyDictionary()

    @property
    def active(self) -> bool:
        """Whether some sequence has yet to prove itself. Steps are then run one after the other, none ahead."""
        self._suspects = {one for one in self._suspects if one.state is not SequenceState.FINISHED}
        return bool(self._suspects)

    @property
    def newcomers(self) -> int | None:
        """How many sequences the next step may admit; None = as many as fit."""
        if not self.active:
            return None
        return 0 if any(one.state is SequenceState.RUNNING for one in self._suspects) else 1

    def failed(self, running: list[Sequence]) -> list[Sequence]:
        """Takes in that a step failed.

        Args:
            running: what ran.

        Returns:
            The sequences to give up: the one on trial, and any that has failed too often.
        """
        culprits = [one for one in running if one in self._suspects]
        for sequence in running:
            self._failures[sequence] = self._failures.get(sequence, 0) + 1
            if self._failures[sequence] >= MAX_FAILURES and sequence not in culprits:
                culprits.append(sequence)
        self._suspects.update(running)
        self._suspects.difference_update(culprits)
        return culprits

    def proven(self, advances: Iterable[Advance]) -> None:
        """Takes in that sequences came through a step with a new token, or ended."""
        self._suspects.difference_update(advance.sequence for advance in advances)
