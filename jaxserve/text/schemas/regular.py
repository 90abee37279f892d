"""Regular languages: sets of texts as automata that can be compared, complemented and written as patterns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_DFA = 400
"""States: larger languages are `NotRegular` here, for the time and memory they would cost."""
MAX_PATTERN = 20_000
BEGIN = 0x110000
"""Beyond all characters."""
EVERY: tuple[tuple[int, int], ...] = ((0, 0xD7FF), (0xE000, 0x10FFFF))
"""All characters, as ranges with both ends included."""
ANY = r"[\s\S]"


class NotRegular(Exception):
    """A pattern that can't be read, or a language too large."""


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

        order, table = explore((0, 0), step)
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


def explore(start: Any, step: Callable[[Any], list[Any]]) -> tuple[list[Any], tuple[tuple[int, ...], ...]]:
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
