"""Who comes in next: the order of waiting sequences, fair between clients."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter

from jaxserve.engine.sequence import Sequence

_by_rank = attrgetter("rank")


class Line:
    """Waiting sequences by rank: those of priority requests first, among equals by turn.

    A turn is a number of tokens: where the turn of its client's last one ended, or where the clock stands, and what the
    sequence may cost at most. The clock is the largest turn that has come in. Clients who wait at the same time thus
    come in alternately, each the oftener the less it asks for, and one client's sequences in order of arrival. Nobody
    waits for ever: whoever arrives gets a turn behind all who have come in, however many clients there are.
    (Self-clocked fair queueing: S. J. Golestani, A self-clocked fair queueing scheme, INFOCOM 1994.)
    """

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []
        self._clock = 0
        self._ends: dict[str, int] = {}
        """Turn of each client's last newcomer, for clients of whom one waits."""
        self._newcomers: Counter[str] = Counter()
        """Waiting sequences of each client that have never been in."""

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    @property
    def head(self) -> Sequence:
        """The sequence that comes in next; IndexError when none waits."""
        return self._sequences[0]

    def join(self, sequences: Iterable[Sequence]) -> None:
        """New arrivals; each gets its turn."""
        for sequence in sequences:
            request = sequence.request
            begin = max(self._clock, self._ends.get(request.client, 0))
            sequence.turn = begin + len(request.prompt) + request.max_tokens
            self._ends[request.client] = sequence.turn
            self._newcomers[request.client] += 1
            insort(self._sequences, sequence, key=_by_rank)

    def rejoin(self, sequence: Sequence) -> None:
        """One that has been in: before all others of its kind, since its turn has come before theirs."""
        insort(self._sequences, sequence, key=_by_rank)

    def come_in(self, sequence: Sequence) -> None:
        """It is its turn."""
        self._clock = max(self._clock, sequence.turn)
        self.leave(sequence)

    def leave(self, sequence: Sequence) -> None:
        """It comes in, or has ended."""
        del self._sequences[bisect_left(self._sequences, sequence.rank, key=_by_rank)]
        if sequence.preemptions == 0:
            self._forget(sequence.request.client)

    def _forget(self, client: str) -> None:
        self._newcomers[client] -= 1
        if not self._newcomers[client]:
            del self._newcomers[client], self._ends[client]
