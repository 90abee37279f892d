"""Patterns as regular languages.

A pattern is that of JSON Schema: it matches anywhere in a text unless it says `^` or `$`. Read is what Python's parser
and the grammar engine's understand alike; anything else is `NotRegular`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from jaxserve.text.schemas.regular import BEGIN, EVERY, MAX_PATTERN, Language, NotRegular, explore

Chars = tuple[tuple[int, int], ...]
"""A set of characters as ranges, ascending, both ends included."""

MAX_NFA = 4_000
"""States."""
END = BEGIN + 1
"""`^` matches a mark before the text, `BEGIN`, and `$` this one after it."""
MARKED: Chars = (*EVERY, (BEGIN, END))
_WORD: Chars = ((48, 57), (65, 90), (95, 95), (97, 122))
_BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
_SPACE: Chars = (*((ord(char), ord(char)) for char in _BLANKS), (0x2000, 0x200A))
_UNLIKE = re.compile(r"\[\[|&&|--|~~|\\[pPkKGZAzXRhHvN]|\\b|\\B|\(\?[a-zA-Z]")
"""Where the parsers differ, or may."""


def _complement(chars: Iterable[tuple[int, int]]) -> Chars:
    left: list[tuple[int, int]] = []
    for low, high in EVERY:
        for first, last in sorted(chars):
            if last < low or first > high:
                continue
            if first > low:
                left.append((low, first - 1))
            low = max(low, last + 1)
        if low <= high:
            left.append((low, high))
    return tuple(left)


_CATEGORIES = {
    codes.CATEGORY_DIGIT: ((48, 57),),
    codes.CATEGORY_NOT_DIGIT: _complement(((48, 57),)),
    codes.CATEGORY_WORD: _WORD,
    codes.CATEGORY_NOT_WORD: _complement(_WORD),
    codes.CATEGORY_SPACE: _SPACE,
    codes.CATEGORY_NOT_SPACE: _complement(_SPACE),
}


@dataclass
class _Nfa:
    """Thompson's automaton: edges by characters, and free ones."""

    free: list[list[int]] = field(default_factory=list)
    edges: list[list[tuple[Chars, int]]] = field(default_factory=list)

    def state(self) -> int:
        if len(self.free) >= MAX_NFA:
            raise NotRegular("too large")
        self.free.append([])
        self.edges.append([])
        return len(self.free) - 1

    def sequence(self, parts: Sequence[Any], start: int) -> int:
        for part in parts:
            start = self.part(part, start)
        return start

    def chars(self, chars: Chars, start: int) -> int:
        end = self.state()
        self.edges[start].append((chars, end))
        return end

    def part(self, part: Any, start: int) -> int:
        kind, value = part
        if kind is codes.SUBPATTERN and not (value[1] or value[2]):
            return self.sequence(value[-1], start)
        if kind is codes.BRANCH:
            return self._branch(value[1], start)
        if kind in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            return self._repeat(value, start)
        return self.chars(_chars(kind, value), start)

    def _branch(self, branches: Sequence[Any], start: int) -> int:
        end = self.state()
        for branch in branches:
            self.free[self.sequence(branch, start)].append(end)
        return end

    def _repeat(self, repeated: Any, start: int) -> int:
        least, most, parts = repeated
        for _ in range(least):
            start = self.sequence(parts, start)
        if most is codes.MAXREPEAT:
            loop = self.state()
            self.free[start].append(loop)
            self.free[self.sequence(parts, loop)].append(loop)
            return loop
        end = self.state()
        self.free[start].append(end)
        for _ in range(most - least):
            start = self.sequence(parts, start)
            self.free[start].append(end)
        return end


def _chars(kind: Any, value: Any) -> Chars:
    if kind is codes.LITERAL:
        return ((value, value),)
    if kind is codes.NOT_LITERAL:
        return _complement(((value, value),))
    if kind is codes.ANY:
        return _complement(((10, 10),))
    if kind is codes.AT and value in (codes.AT_BEGINNING, codes.AT_END):
        mark = BEGIN if value is codes.AT_BEGINNING else END
        return ((mark, mark),)
    if kind is codes.IN:
        return _class(value)
    raise NotRegular(str(kind))


def _class(items: Sequence[Any]) -> Chars:
    negated = bool(items) and items[0][0] is codes.NEGATE
    ranges: list[tuple[int, int]] = []
    for kind, value in items[negated:]:
        if kind is codes.RANGE:
            ranges.append(value)
        elif kind is codes.CATEGORY:
            ranges += _CATEGORIES[value]
        else:
            ranges.append((value, value))
    return _complement(ranges) if negated else tuple(sorted(ranges))


@lru_cache(512)
def language(pattern: str) -> Language:
    """The texts that a pattern matches somewhere.

    Raises:
        NotRegular: it can't be told.
    """
    if _UNLIKE.search(pattern) or len(pattern) > MAX_PATTERN:
        raise NotRegular("read differently elsewhere")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parsed = list(parser.parse(pattern))
    except (re.error, Warning, RecursionError, OverflowError):
        raise NotRegular("not a regular expression") from None
    return _language(parsed)


def _language(parsed: Sequence[Any]) -> Language:
    nfa = _Nfa()
    start = nfa.state()
    nfa.edges[start].append((MARKED, start))
    try:
        end = nfa.sequence(parsed, start)
    except RecursionError:
        raise NotRegular("nested too deeply") from None
    nfa.edges[end].append((MARKED, end))
    return _determined(nfa, start, end)


def _determined(nfa: _Nfa, start: int, end: int) -> Language:
    used = {chars for edges in nfa.edges for chars, _ in edges} - {MARKED}
    bounds = sorted({0, BEGIN, END} | {bound for chars in used for low, high in chars for bound in (low, high + 1)})
    bounds = [bound for bound in bounds if bound <= END]
    inside = {chars: [any(low <= b <= high for low, high in chars) for b in bounds] for chars in used}
    inside[MARKED] = [True] * len(bounds)
    closures = _closures(nfa)

    def step(states: frozenset[int]) -> list[frozenset[int]]:
        edges = [edge for state in states for edge in nfa.edges[state]]
        return [
            frozenset().union(*(closures[target] for chars, target in edges if inside[chars][index]))
            for index in range(len(bounds))
        ]

    order, table = explore(closures[start], step)
    begin, close = bounds.index(BEGIN), bounds.index(END)
    final = frozenset(i for i, row in enumerate(table) if end in order[row[close]])
    return _rooted(bounds[:begin], table, table[0][begin], final).minimal()


def _rooted(bounds: list[int], table: Sequence[Sequence[int]], start: int, final: frozenset[int]) -> Language:
    """The automaton from another state on, without the marks."""
    order, rows = explore(start, lambda state: list(table[state][: len(bounds)]))
    return Language(tuple(bounds), rows, frozenset(i for i, state in enumerate(order) if state in final))


def _closures(nfa: _Nfa) -> list[frozenset[int]]:
    """By state: where one can be without reading anything."""
    closures = []
    for state in range(len(nfa.free)):
        seen, stack = {state}, [state]
        while stack:
            for target in nfa.free[stack.pop()]:
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        closures.append(frozenset(seen))
    return closures
