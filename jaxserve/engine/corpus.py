"""Following an output through a text that it may repeat, token by token. No arrays."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from itertools import chain, islice

_CANDIDATES = 32
"""Places compared when a match is looked for."""
_LONGEST = 64
"""Tokens compared backwards at each."""


class Corpus:
    """A text, and where in it the output is as long as it repeats it.

    While the output's tokens are the text's, both are in step. When one differs, the text is searched for the longest
    end of the output that occurs in it; of equally good places the next one behind where they parted is taken, as the
    edit of a text needs.

    Args:
        tokens: the text; the output is taken to begin with it.
        least: tokens that must match for the output to be found in the text again.
    """

    def __init__(self, tokens: Iterable[int], least: int) -> None:
        self._tokens = list(tokens)
        self._least = least
        self._ends: dict[tuple[int, ...], list[int]] = {}
        """By `least` tokens, the places behind them, ascending."""
        self._indexed = 0
        self._parted = 0
        self._next: int | None = 0
        self.matched = 0
        """Tokens for which they have been in step."""

    def take(self, output: Seq[int], count: int) -> None:
        """Follows the last `count` tokens of an output."""
        for token in output[len(output) - count :]:
            self._follow(token)
        if self._next is None:
            self._search(output)

    def guess(self, start: int, count: int) -> tuple[int, ...]:
        """At most `count` tokens, from `start` tokens behind the output as it was followed."""
        if self._next is None:
            return ()
        return tuple(self._tokens[self._next + start : self._next + start + count])

    def _follow(self, token: int) -> None:
        if self._next is None:
            return
        if self._next < len(self._tokens) and self._tokens[self._next] == token:
            self._next += 1
            self.matched += 1
        else:
            self._parted, self._next, self.matched = self._next, None, 0

    def _search(self, output: Seq[int]) -> None:
        self._index()
        ends = self._candidates(self._ends.get(tuple(output[-self._least :]), []))
        found = max(((self._agreement(output, end), -rank, end) for rank, end in enumerate(ends)), default=None)
        if found is not None:
            self.matched, _, self._next = found

    def _candidates(self, ends: list[int]) -> Iterator[int]:
        """Places to compare, the likeliest first."""
        middle = bisect_left(ends, self._parted)
        return chain(ends[middle : middle + _CANDIDATES], islice(reversed(ends[:middle]), _CANDIDATES))

    def _index(self) -> None:
        least = self._least
        for end in range(max(self._indexed + 1, least), len(self._tokens) + 1):
            self._ends.setdefault(tuple(self._tokens[end - least : end]), []).append(end)
        self._indexed = len(self._tokens)

    def _agreement(self, output: Seq[int], end: int) -> int:
        """How many tokens before a place are the output's last."""
        most = min(end, len(output), _LONGEST)
        return next((n for n in range(most) if self._tokens[end - 1 - n] != output[-1 - n]), most)


class OwnCorpus(Corpus):
    """Prompt and output as the text: what comes next is what came after the same tokens before (prompt lookup).

    Args:
        tokens: the prompt.
        least: tokens that must occur again.
    """

    def __init__(self, tokens: Iterable[int], least: int) -> None:
        super().__init__(tokens, least)
        self._next = None

    def take(self, output: Seq[int], count: int) -> None:
        """Follows, and appends to the text."""
        for token in output[len(output) - count :]:
            self._follow(token)
            self._tokens.append(token)
        if self._next is None:
            self._search(self._tokens)

    def guess(self, start: int, count: int) -> tuple[int, ...]:
        """As of any text; behind its end what lies between the place and the end is taken to repeat."""
        if self._next is None:
            return ()
        known, guessed = self._tokens[self._next : self._next + start + count], list[int]()
        for index in range(start + count):
            guessed.append(known[index] if index < len(known) else guessed[index - len(known)])
        return tuple(guessed[start:])

    def _candidates(self, ends: list[int]) -> Iterator[int]:
        """The latest places first; the end of the text is none."""
        return islice((end for end in reversed(ends) if end < len(self._tokens)), _CANDIDATES)
