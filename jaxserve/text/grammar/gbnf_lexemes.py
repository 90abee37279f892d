"""Parts of a recursive GBNF grammar that may be lexemes without changing what the grammar means.

A lexeme is always as long as possible, and while one is being read no other way of reading the same text survives. That
is harmless for a part that

- begins with a character that nothing else in the grammar begins with (so there is no other way), and
- is read in one way only and ends as soon as it can (so the longest is the only one).

Quoted strings are such parts, and most of what a grammar for JSON spends its time on: one character at a time, the mask
of a large vocabulary costs tens of milliseconds; as a lexeme, microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from llguidance.gbnf_to_lark import (
    AlternativeNode,
    ASTNode,
    LiteralNode,
    RegexNode,
    RepetitionNode,
    RuleNode,
    RuleRefNode,
    SequenceNode,
)

from jaxserve.text.grammar.gbnf_text import python_class, unescape

Segment = tuple[int, int]
"""(identity of a sequence node, index of the opening literal); the repetition and the closing literal follow it."""


def delimited_parts(rules: Mapping[str, RuleNode]) -> set[Segment]:
    """The parts `"open" (...)* "close"` of the rules that may be lexemes."""
    firsts = _Firsts(rules)
    sequences = [node for rule in rules.values() for node in _walk(rule) if isinstance(node, SequenceNode)]
    found = {
        (id(sequence), at): sequence
        for sequence in sequences
        for at in range(len(sequence.nodes) - 2)
        if firsts.is_delimited(sequence.nodes[at : at + 3])
    }
    while True:
        others = _single_characters(rules, set(found), firsts)
        begins: dict[str, set[str]] = {}
        for (_, at), sequence in found.items():
            for char in firsts.of(sequence.nodes[at]):
                begins.setdefault(char, set()).add(_written(sequence, at))
        unique = {
            (key, at): sequence
            for (key, at), sequence in found.items()
            if all(char not in others and len(begins[char]) == 1 for char in firsts.of(sequence.nodes[at]))
        }
        if len(unique) == len(found):
            return set(found)
        found = unique


def _written(sequence: SequenceNode, at: int) -> str:
    return " ".join(map(str, sequence.nodes[at : at + 3]))


def _walk(node: ASTNode) -> Iterator[ASTNode]:
    yield node
    for child in node.children():
        yield from _walk(child)


def _single_characters(rules: Mapping[str, RuleNode], segments: set[Segment], firsts: _Firsts) -> frozenset[str]:
    """Characters that are lexemes of their own, outside of the given parts."""
    found: set[str] = set()

    def visit(node: ASTNode) -> None:
        children = list(node.children())
        if isinstance(node, LiteralNode):
            found.update(unescape(node.value))
        elif isinstance(node, RegexNode):
            found.update(firsts.of(node))
        elif isinstance(node, SequenceNode):
            inside = {at + offset for sequence, at in segments if sequence == id(node) for offset in range(3)}
            children = [child for at, child in enumerate(node.nodes) if at not in inside]
        for child in children:
            visit(child)

    for rule in rules.values():
        visit(rule)
    return frozenset(found)


class _Firsts:
    """With which characters parts begin. Characters that no class tells apart have one representative."""

    def __init__(self, rules: Mapping[str, RuleNode]) -> None:
        self._rules = rules
        mentioned = {"a", "\U0010ffff"}
        for rule in rules.values():
            for node in _walk(rule):
                if isinstance(node, LiteralNode | RegexNode):
                    mentioned |= set(unescape(node.value if isinstance(node, LiteralNode) else node.rx))
        codes = {ord(char) + step for char in mentioned for step in (-1, 0, 1)}
        self._alphabet = frozenset(chr(code) for code in codes if 0 <= code < 0x110000)
        self._classes: dict[str, frozenset[str]] = {}
        self._readable: dict[str, bool] = {}
        self._firsts = self._solve()

    def _solve(self) -> dict[str, tuple[frozenset[str], bool]]:
        """(first characters, whether it may be empty) of every rule: the least solution of their equations."""
        self._firsts = {name: (frozenset(), False) for name in self._rules}
        users: dict[str, set[str]] = {name: set() for name in self._rules}
        for name, rule in self._rules.items():
            for node in _walk(rule):
                if isinstance(node, RuleRefNode):
                    users[node.name].add(name)
        waiting = dict.fromkeys(self._rules)
        while waiting:
            name, _ = waiting.popitem()
            solved = self._first(self._rules[name].alternatives)
            if solved != self._firsts[name]:
                self._firsts[name] = solved
                waiting.update(dict.fromkeys(users[name]))
        return self._firsts

    def of(self, node: ASTNode) -> frozenset[str]:
        """First characters of a part."""
        return self._first(node)[0]

    def _first(self, node: ASTNode) -> tuple[frozenset[str], bool]:
        if isinstance(node, LiteralNode):
            return frozenset(unescape(node.value)[:1]), not node.value
        if isinstance(node, RegexNode):
            return self._class(node.rx), False
        if isinstance(node, RuleRefNode):
            return self._firsts[node.name]
        if isinstance(node, RepetitionNode):
            chars, empty = self._first(node.node)
            return chars, empty or node.min_times == 0
        if isinstance(node, SequenceNode):
            return self._first_of_sequence(node)
        options = [self._first(child) for child in node.children()]
        return frozenset().union(*(chars for chars, _ in options)), any(empty for _, empty in options)

    def _first_of_sequence(self, node: SequenceNode) -> tuple[frozenset[str], bool]:
        chars: frozenset[str] = frozenset()
        for child in node.nodes:
            more, empty = self._first(child)
            chars |= more
            if not empty:
                return chars, False
        return chars, True

    def _class(self, regex: str) -> frozenset[str]:
        if regex not in self._classes:
            pattern = re.compile(python_class(regex), re.DOTALL)
            self._classes[regex] = frozenset(char for char in self._alphabet if pattern.fullmatch(char))
        return self._classes[regex]

    def is_delimited(self, nodes: Sequence[ASTNode]) -> bool:
        """Whether three neighbours are a literal, a repetition that is read in one way, and a literal that ends it."""
        opening, body, closing = nodes
        if not (isinstance(opening, LiteralNode) and opening.value and isinstance(body, RepetitionNode)):
            return False
        if not (isinstance(closing, LiteralNode) and closing.value):
            return False
        return self._one_way(body.node) and not (self.of(body.node) & self.of(closing))

    def _one_way(self, node: ASTNode) -> bool:
        """Whether a part is never empty and its next character always says how it is read."""
        if isinstance(node, LiteralNode):
            return bool(node.value)
        if isinstance(node, RegexNode):
            return True
        if isinstance(node, RuleRefNode):
            if node.name not in self._readable:
                self._readable[node.name] = False  # a rule that holds itself isn't regular
                self._readable[node.name] = self._one_way(self._rules[node.name].alternatives)
            return self._readable[node.name]
        if isinstance(node, RepetitionNode):
            return node.min_times == node.max_times != 0 and self._one_way(node.node)
        if isinstance(node, SequenceNode):
            return bool(node.nodes) and all(self._one_way(child) for child in node.nodes)
        if not isinstance(node, AlternativeNode):
            return False
        firsts = [self.of(child) for child in node.alternatives]
        apart = len(frozenset().union(*firsts)) == sum(map(len, firsts))
        return apart and all(self._one_way(child) for child in node.alternatives)
