"""Regular languages: what patterns match, as automata that can be compared, complemented and written as patterns again.

A pattern is that of JSON Schema: it matches anywhere in a text unless it says `^` or `$`. Read is what Python's parser
and the grammar engine's understand alike; anything else is `NotRegular`.
"""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Chars = tuple[tuple[int, int], ...]
"""A set of characters as ranges, ascending, both ends included."""

MAX_NFA = 4_000
MAX_DFA = 400
"""States: larger languages are `NotRegular` here, for the time and memory they would cost."""
MAX_PATTERN = 20_000
BEGIN, END = 0x110000, 0x110001
"""What `^` and `$` match: marks around the text."""
EVERY: Chars = ((0, 0xD7FF), (0xE000, 0x10FFFF))
MARKED: Chars = (*EVERY, (BEGIN, END))
ANY = r"[\s\S]"
_WORD: Chars = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Chars = (
    (9, 13), (32, 32), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
_UNLIKE = re.compile(r"\[\[|&&|--|~~|\\[pPkKGZAzXRhHvN]|\\b|\\B|\(\?[a-zA-Z]")
"""Where the parsers differ, or may."""


class NotRegular(Exception):
    """A pattern that can't be read, or a language too large."""


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
            return self._repeat(*value, start)
        return self.chars(_chars(kind, value), start)

    def _branch(self, branches: Sequence[Any], start: int) -> int:
        end = self.state()
        for branch in branches:
            self.free[self.sequence(branch, start)].append(end)
        return end

    def _repeat(self, least: int, most: Any, parts: Sequence[Any], start: int) -> int:
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


@dataclass(frozen=True)
class Language:
    """A set of texts: a complete deterministic automaton. Its characters are classes that no transition tells apart."""

    bounds: tuple[int, ...]
    """Where a class of characters begins; each ends before the next."""
    table: tuple[tuple[int, ...], ...]
    """[state][class] -> state; the first state is the start."""
    final: frozenset[int]

    @property
    def empty(self) -> bool:
        """Whether it has no text. (All states can be reached.)"""
        return not self.final

    def __contains__(self, text: str) -> bool:
        state = 0
        for char in text:
            state = self.table[state][self._class(ord(char))]
        return state in self.final

    def _class(self, char: int) -> int:
        low, high = 0, len(self.bounds)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bounds[middle] <= char else (low, middle)
        return low

    def __invert__(self) -> Language:
        return Language(self.bounds, self.table, frozenset(range(len(self.table))) - self.final)

    def __and__(self, other: Language) -> Language:
        bounds = tuple(sorted({*self.bounds, *other.bounds}))
        pairs = [(self._class(bound), other._class(bound)) for bound in bounds]

        def step(state: Any) -> list[Any]:
            return [(self.table[state[0]][a], other.table[state[1]][b]) for a, b in pairs]

        order, table = _explore((0, 0), step)
        final = (i for i, (a, b) in enumerate(order) if a in self.final and b in other.final)
        return Language(bounds, table, frozenset(final)).minimal()

    def meets(self, other: Language) -> bool:
        """Whether they have a text in common."""
        bounds = sorted({*self.bounds, *other.bounds})
        pairs = {(self._class(bound), other._class(bound)) for bound in bounds}
        seen, stack = {(0, 0)}, [(0, 0)]
        while stack:
            one, two = stack.pop()
            if one in self.final and two in other.final:
                return True
            for a, b in pairs:
                target = self.table[one][a], other.table[two][b]
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        return False

    def minimal(self) -> Language:
        """The same with as few states as possible (Moore)."""
        blocks = [int(state in self.final) for state in range(len(self.table))]
        while True:
            signs = [(blocks[i], *(blocks[target] for target in row)) for i, row in enumerate(self.table)]
            names = {sign: index for index, sign in enumerate(dict.fromkeys(signs))}
            if len(names) == len(set(blocks)):
                break
            blocks = [names[sign] for sign in signs]
        blocks = [names[sign] for sign in signs]
        table: dict[int, tuple[int, ...]] = {}
        for state, row in enumerate(self.table):
            table.setdefault(blocks[state], tuple(blocks[target] for target in row))
        final = frozenset(blocks[state] for state in self.final)
        return Language(self.bounds, tuple(table[index] for index in range(len(table))), final)

    def words(self, most: int) -> list[str] | None:
        """All its texts, if they are `most` at most."""
        alive, found = self._alive(), list[str]()
        queue = deque([(0, "")] if 0 in alive else [])
        while queue:
            state, text = queue.popleft()
            found += [text] if state in self.final else []
            if len(text) > len(self.table) or len(queue) + len(found) > most:
                return None
            for index, target in enumerate(self.table[state]):
                if target in alive:
                    chars = _range(self.bounds, index)
                    if len(chars) > most:
                        return None
                    queue.extend((target, text + chr(char)) for char in chars)
        return found if len(found) <= most else None

    def _alive(self) -> set[int]:
        """States from which a text can end."""
        alive, before = set(self.final), -1
        while before != len(alive):
            before = len(alive)
            alive |= {state for state, row in enumerate(self.table) if alive.intersection(row)}
        return alive

    def pattern(self) -> str:
        """A pattern of exactly its texts.

        Raises:
            NotRegular: it would be too long.
        """
        return "^(?:" + _Eliminated(self, self._alive()).regex() + ")$"


class _Eliminated:
    """States taken out one by one, until one edge is left from before the start to after the end."""

    def __init__(self, language: Language, alive: set[int]) -> None:
        self._into: dict[int, dict[int, str]] = {state: {} for state in alive}
        self._out: dict[int, dict[int, str]] = {state: {} for state in alive}
        self._out[-1], self._into[-2] = {}, {}
        for state in alive:
            targets: dict[int, list[tuple[int, int]]] = {}
            for index, target in enumerate(language.table[state]):
                ranges = _ranges(language.bounds, index) if target in alive else []
                if ranges:
                    targets.setdefault(target, []).extend(ranges)
            for target, ranges in targets.items():
                self._edge(state, target, _written(ranges))
            if state in language.final:
                self._edge(state, -2, "")
        if 0 in alive:
            self._edge(-1, 0, "")

    def _edge(self, start: int, end: int, regex: str) -> None:
        known = self._out[start].get(end)
        self._out[start][end] = self._into[end][start] = regex if known is None else _either(known, regex)

    def regex(self) -> str:
        while len(self._into) > 1:
            self._remove(min((s for s in self._into if s >= 0), key=self._weight))
        return self._out[-1].get(-2, r"[^\s\S]")

    def _weight(self, state: int) -> int:
        into, out = self._into[state], self._out[state]
        return sum(map(len, into.values())) * len(out) + sum(map(len, out.values())) * len(into)

    def _remove(self, state: int) -> None:
        into, out = self._into.pop(state), self._out.pop(state)
        loop = into.pop(state, None)
        out.pop(state, None)
        again = _starred(loop) if loop else ""
        for start in into:
            del self._out[start][state]
        for end in out:
            del self._into[end][state]
        for start, head in into.items():
            for end, tail in out.items():
                regex = _grouped(head) + again + _grouped(tail)
                if len(regex) > MAX_PATTERN:
                    raise NotRegular("too large")
                self._edge(start, end, regex)


def _either(one: str, other: str) -> str:
    if one == other:
        return one
    if not one or not other:
        return f"(?:{one or other})?"
    return f"{one}|{other}"


def _grouped(regex: str) -> str:
    return f"(?:{regex})" if "|" in regex else regex


def _starred(regex: str) -> str:
    return f"(?:{regex})*" if len(regex) > 1 else f"{regex}*"


def _range(bounds: Sequence[int], index: int) -> range:
    return range(bounds[index], bounds[index + 1] if index + 1 < len(bounds) else BEGIN)


def _ranges(bounds: Sequence[int], index: int) -> list[tuple[int, int]]:
    """A class without the surrogates, which no text has."""
    chars = _range(bounds, index)
    low, high = chars.start, chars.stop - 1
    return [(max(low, first), min(high, last)) for first, last in EVERY if low <= last and high >= first]


def _written(ranges: list[tuple[int, int]]) -> str:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and joined[-1][1] + 1 == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    if tuple(joined) == EVERY:
        return ANY
    if len(joined) == 1 and joined[0][0] == joined[0][1]:
        return escaped(chr(joined[0][0]))
    return "[" + "".join(escaped(chr(a)) + (f"-{escaped(chr(b))}" if b > a else "") for a, b in joined) + "]"


def escaped(text: str) -> str:
    """A text as a pattern of it, also inside a class of characters."""
    return "".join(char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)


def _explore(start: Any, step: Any) -> tuple[list[Any], tuple[tuple[int, ...], ...]]:
    """All states that can be reached, and the transitions between them."""
    known, order, table = {start: 0}, [start], []
    for state in order:
        targets = step(state)
        for target in targets:
            if target not in known:
                if len(order) >= MAX_DFA:
                    raise NotRegular("too large")
                known[target] = len(order)
                order.append(target)
        table.append(tuple(known[target] for target in targets))
    return order, tuple(table)


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

    order, table = _explore(closures[start], step)
    begin, close = bounds.index(BEGIN), bounds.index(END)
    final = frozenset(i for i, row in enumerate(table) if end in order[row[close]])
    return _rooted(bounds[:begin], table, table[0][begin], final).minimal()


def _rooted(bounds: list[int], table: Sequence[Sequence[int]], start: int, final: frozenset[int]) -> Language:
    """The automaton from another state on, without the marks."""
    order, rows = _explore(start, lambda state: list(table[state][: len(bounds)]))
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


def other_texts(words: Iterable[str]) -> str:
    """A pattern of all texts but some."""
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = True
    return f"^(?:{_other_ends(root)})$"


def _other_ends(node: dict[str, Any]) -> str:
    """What may follow a beginning so that it becomes none of the words."""
    if not node:
        return f"{ANY}*"
    chars = [char for char in node if char]
    options = [f"{escaped(char)}(?:{_other_ends(node[char])})" for char in chars]
    options.append(f"[^{escaped(''.join(chars))}]{ANY}*" if chars else f"{ANY}+")
    return "|".join(options) if "" in node else f"(?:{'|'.join(options)})?"
