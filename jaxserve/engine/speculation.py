"""Drafts: guesses at how outputs go on, from three sources, and how far each is to be trusted.

The client's prediction (tokens the output may resemble), the sequence's own text (prompt lookup, if the server does
that; the output alone where a grammar rules), and its constraint (text that a grammar leaves no choice about). Whatever
is guessed, a draft becomes a token only where it is what the sequence draws there: wrong guesses cost time, never
tokens. No arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol
from weakref import WeakKeyDictionary, ref

from jaxserve.config import MAX_DRAFTS
from jaxserve.engine.corpus import Corpus, OwnCorpus
from jaxserve.engine.drafting import Proposal
from jaxserve.engine.plan import Advance
from jaxserve.engine.requests import DraftOrigin
from jaxserve.engine.sequence import Sequence

_LEAST_PREDICTED = 2
"""Tokens that find an output in the client's prediction: that is one text, and likely to be right."""
_LEAST_OWN = 3
"""The same in prompt and output."""
_LOOKED_UP = 16_384
"""Tokens of a prompt that are looked at: indexing more would hold up the engine."""
_DECAY = 0.9
"""What a row's outcome weighs after each later one."""
_LONGEST_PAUSE = 256

Forced = Callable[[Sequence], tuple[int, ...]]
"""The tokens that a sequence's constraint leaves no choice about, behind its committed output."""


@dataclass
class Trust:
    """How many drafts of a source come right, from those that were tried lately."""

    right: float = 3.0
    wrong: float = 1.0
    pause: int = 0
    """Output tokens before it is tried again."""
    _next_pause: int = 8

    @property
    def length(self) -> float:
        """Drafts that are right before one is wrong, on the average."""
        return self.right / self.wrong

    def learn(self, drafted: int, accepted: int) -> None:
        """Takes in what became of a row's drafts; where less than one of them is right, a pause follows."""
        self.right = _DECAY * self.right + accepted
        self.wrong = max(_DECAY * self.wrong + (accepted < drafted), 0.1)
        if self.length < 1:
            self.pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)
            self.right = self.wrong = 1.0
        elif accepted == drafted:
            self._next_pause = max(8, self._next_pause // 2)


class _Source(Protocol):
    """Where drafts come from."""

    def take(self, output: Seq[int], count: int) -> None:
        """Follows the last `count` tokens of the output."""

    def guess(self, start: int, count: int) -> tuple[int, ...]:
        """At most `count` tokens, from `start` tokens behind the output."""

    @property
    def matched(self) -> int:
        """Output tokens for which it has been right."""


class _Constraint:
    """The tokens that a constraint leaves no choice about."""

    matched = MAX_DRAFTS

    def __init__(self, sequence: Sequence, forced: Forced) -> None:
        self._sequence = ref(sequence)
        self._forced = forced

    def take(self, output: Seq[int], count: int) -> None:
        """The constraint follows by itself."""

    def guess(self, start: int, count: int) -> tuple[int, ...]:
        sequence = self._sequence()
        return () if sequence is None else self._forced(sequence)[start : start + count]


@dataclass
class _Drafter:
    """What is known of one sequence."""

    sources: dict[DraftOrigin, tuple[_Source, Trust]]
    """Of equally good guesses the first source's is taken."""
    followed: int = 0
    """Tokens of the output that they have followed."""


class Speculation:
    """Proposes drafts and learns from what became of them.

    Args:
        lookup: whether outputs are guessed from their own text.
        forced: what constraints leave no choice about.
    """

    def __init__(self, *, lookup: bool, forced: Forced) -> None:
        self._lookup = lookup
        self._forced = forced
        self._drafters: WeakKeyDictionary[Sequence, _Drafter] = WeakKeyDictionary()
        self.drafted = 0
        """Drafts so far of which it is known what became of them."""
        self.accepted = 0
        """Those of them that were right."""

    def propose(self, sequence: Sequence, most: int) -> Proposal | None:
        """At most `most` tokens that a sequence may yield from its planned row on; None = no idea."""
        drafter = self._drafters.get(sequence)
        if drafter is None:
            drafter = self._drafters[sequence] = _Drafter(self._sources(sequence))
        if drafter.sources:
            _follow(drafter, sequence)
        ahead, ends = sequence.sampled - 1 - len(sequence.output), sequence.request.stop_token_ids
        best: Proposal | None = None
        for origin, (source, trust) in drafter.sources.items():
            if not trust.pause:
                tokens = tuple(takewhile(lambda token: token not in ends, source.guess(ahead, most)))
                wanted = min(int(trust.length), 1 + 2 * source.matched, len(tokens))
                if tokens and (best is None or wanted > best.wanted):
                    best = Proposal(tokens, wanted, origin)
        return best

    def learn(self, advance: Advance) -> None:
        """Takes in what became of a row's drafts."""
        if advance.origin is not None:
            self.drafted += advance.drafted
            self.accepted += advance.accepted
            self._drafters[advance.sequence].sources[advance.origin][1].learn(advance.drafted, advance.accepted)

    def _sources(self, sequence: Sequence) -> dict[DraftOrigin, tuple[_Source, Trust]]:
        request = sequence.request
        sources: dict[DraftOrigin, tuple[_Source, Trust]] = {}
        if request.constraint is not None:
            sources["constraint"] = _Constraint(sequence, self._forced), Trust(right=8.0)
        if request.prediction:
            sources["prediction"] = Corpus(request.prediction, _LEAST_PREDICTED), Trust()
        if self._lookup:
            sources["own text"] = OwnCorpus(request.prompt[-_LOOKED_UP:], _LEAST_OWN), Trust()
        elif request.constraint is not None:
            # A model need not write forced text as the tokenizer would, but it writes the same key alike each time.
            sources["own text"] = OwnCorpus((), _LEAST_OWN), Trust()
        return sources


def _follow(drafter: _Drafter, sequence: Sequence) -> None:
    count = len(sequence.output) - drafter.followed
    if count:
        drafter.followed += count
        for source, trust in drafter.sources.values():
            source.take(sequence.output, count)
            trust.pause = max(0, trust.pause - count)
