"""GBNF grammars (llama.cpp's notation) in llguidance's dialect of Lark, with GBNF's meaning.

GBNF matches character by character. Lark cuts the text into lexemes first, each as long as possible, and so refuses
texts that GBNF allows: after `[a-z]*` an "end" is never found. So a grammar without recursion becomes one regular
expression, and in one with recursion every character is a lexeme, except in parts where that makes no difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from llguidance.gbnf_to_lark import (
    AlternativeNode,
    ASTNode,
    GbnfToLarkError,
    GrammarParser,
    LiteralNode,
    RegexNode,
    RepetitionNode,
    RuleNode,
    RuleRefNode,
    SequenceNode,
)

from jaxserve.text.grammar.gbnf_lexemes import delimited_parts
from jaxserve.text.grammar.gbnf_text import rust_class, unescape

MAX_REGEX = 50_000
"""Characters of the one regular expression; larger grammars are kept as rules."""
MAX_DEPTH = 200
MAX_RULES = 1_000


class GbnfError(Exception):
    """A grammar that can't be used; the message says why."""


def gbnf_to_lark(text: str) -> str:
    """The Lark grammar of a GBNF grammar.

    Raises:
        GbnfError: a syntax error, an undefined rule, no rule `root`.
    """
    try:
        rules = GrammarParser().parse(text)
    except GbnfToLarkError as error:
        raise GbnfError(str(error)) from None
    except RecursionError:
        raise GbnfError("nested too deeply") from None
    if "root" not in rules:
        raise GbnfError("there is no rule named root")
    if len(rules) > MAX_RULES:
        raise GbnfError(f"more than {MAX_RULES} rules")
    _check_references(rules)
    try:
        regex = _Regex(rules).rule("root", ())
    except (_NotRegular, RecursionError):
        return _recursive(rules)
    return f"start: {_slashed(regex)}"


def _recursive(rules: Mapping[str, RuleNode]) -> str:
    try:
        return _Rules(rules).grammar()
    except (RecursionError, _NotRegular):
        raise GbnfError("nested too deeply") from None


class _NotRegular(Exception):
    """The grammar recurses, or its regular expression would be too long."""


def _check_references(rules: Mapping[str, RuleNode]) -> None:
    for rule in rules.values():
        stack: list[tuple[ASTNode, int]] = [(rule.alternatives, 0)]
        while stack:
            node, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise GbnfError("nested too deeply")
            if isinstance(node, RuleRefNode) and node.name not in rules:
                raise GbnfError(f"rule {node.name!r} is used and not defined")
            stack += [(child, depth + 1) for child in node.children()]


class _Regex:
    """Rules as regular expressions. Raises `_NotRegular` where there is none, or a long one."""

    def __init__(self, rules: Mapping[str, RuleNode]) -> None:
        self._rules = rules
        self._done: dict[str, str] = {}

    def rule(self, name: str, above: tuple[str, ...]) -> str:
        if name in above or len(above) > MAX_DEPTH:
            raise _NotRegular
        if name not in self._done:
            self._done[name] = self._node(self._rules[name].alternatives, (*above, name))
        return self._done[name]

    def sequence(self, nodes: list[ASTNode]) -> str:
        """Neighbours, one after the other."""
        return "".join(self._node(node, ()) for node in nodes)

    def _node(self, node: ASTNode, above: tuple[str, ...]) -> str:
        if isinstance(node, LiteralNode):
            regex = re.escape(unescape(node.value)).replace("\\\n", r"\n").replace("/", r"\/")
        elif isinstance(node, RegexNode):
            regex = rust_class(node.rx)
        elif isinstance(node, RuleRefNode):
            regex = self.rule(node.name, above)
        elif isinstance(node, RepetitionNode):
            regex = f"({self._node(node.node, above)}){_count(node)}"
        elif isinstance(node, AlternativeNode):
            regex = "(" + "|".join(self._node(child, above) for child in node.alternatives) + ")"
        elif isinstance(node, SequenceNode):
            regex = "".join(self._node(child, above) for child in node.nodes)
        else:
            raise GbnfError("an unknown construct")
        if len(regex) > MAX_REGEX:
            raise _NotRegular
        return regex


class _Rules:
    """Rules as Lark rules over single characters."""

    def __init__(self, rules: Mapping[str, RuleNode]) -> None:
        self._rules = rules
        self._parts = delimited_parts(rules)
        self._regex = _Regex(rules)
        self._names = {name: "start" if name == "root" else f"g{index}" for index, name in enumerate(rules)}

    def grammar(self) -> str:
        return "\n".join(f"{self._names[name]}: {self._node(rule.alternatives)}" for name, rule in self._rules.items())

    def _node(self, node: ASTNode) -> str:
        if isinstance(node, LiteralNode):
            return " ".join(json.dumps(char, ensure_ascii=False) for char in unescape(node.value)) or '""'
        if isinstance(node, RegexNode):
            return _slashed(rust_class(node.rx))
        if isinstance(node, RuleRefNode):
            return self._names[node.name]
        if isinstance(node, RepetitionNode):
            return f"({self._node(node.node)}){_count(node)}"
        if isinstance(node, AlternativeNode):
            return "(" + " | ".join(self._node(child) for child in node.alternatives) + ")"
        if isinstance(node, SequenceNode):
            return self._sequence(node)
        raise GbnfError("an unknown construct")

    def _sequence(self, node: SequenceNode) -> str:
        written, at = [], 0
        while at < len(node.nodes):
            if (id(node), at) in self._parts:
                written.append(_slashed(self._regex.sequence(node.nodes[at : at + 3])))
                at += 3
            else:
                written.append(self._node(node.nodes[at]))
                at += 1
        return " ".join(written) or '""'


def _count(node: RepetitionNode) -> str:
    bounds = (node.min_times, node.max_times)
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    if bounds in short:
        return short[bounds]
    if node.max_times is not None and node.max_times < node.min_times:
        raise GbnfError(f"a repetition of {node.min_times} to {node.max_times} times")
    return f"{{{node.min_times},{'' if node.max_times is None else node.max_times}}}"


def _slashed(regex: str) -> str:
    return "/" + regex.replace("\n", r"\n") + "/"
