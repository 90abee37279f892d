"""Who comes in next: the order of waiting sequences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from jaxserve.engine.sequence import Sequence


class Line:
    """Waiting sequences by rank: those of priority requests first, among equals by arrival.

    Two queues, because a sequence that lost its pages goes back to the front of its own kind: everything of its kind
    that waits has arrived later.
    """

    def __init__(self) -> None:
        self._queues: tuple[OrderedDict[Sequence, None], ...] = (OrderedDict(), OrderedDict())

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def __iter__(self) -> Iterator[Sequence]:
        for queue in self._queues:
            yield from queue

    @property
    def head(self) -> Sequence:
        """The sequence that comes in next; StopIteration when none waits."""
        return next(iter(self))

    def join(self, sequences: Iterable[Sequence]) -> None:
        """New arrivals, behind all others of their kind."""
        for sequence in sequences:
            self._of(sequence)[sequence] = None

    def rejoin(self, sequence: Sequence) -> None:
        """One that has been in, before all others of its kind."""
        queue = self._of(sequence)
        queue[sequence] = None
        queue.move_to_end(sequence, last=False)

    def leave(self, sequence: Sequence) -> None:
        """It comes in, or has ended."""
        del self._of(sequence)[sequence]

    def _of(self, sequence: Sequence) -> OrderedDict[Sequence, None]:
        return self._queues[0 if sequence.request.priority else 1]
