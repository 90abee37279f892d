"""Keywords that combine schemas: `not`, `if`, `oneOf`, and patterns with look-ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxserve.text.schemas.closing import named_keys
from jaxserve.text.schemas.node import CannotSay, Node, Rule, Says, all_of, any_of
from jaxserve.text.schemas.reading import Document, Schema
from jaxserve.text.schemas.regular import NotRegular
from jaxserve.text.schemas.strings import ALIASES, FORMATS, pattern_language, split_lookahead


def _not(says: Says, node: Node, value: Any) -> list[Schema]:
    return [says.opposite(node, value)]


def _if(says: Says, node: Node, value: Any) -> list[Schema]:
    """`if` and `then`, or not `if` and `else`. What holds in both cases needs no opposite."""
    then, otherwise = node.given.get("then", True), node.given.get("else", True)
    if then is True and otherwise is True:
        return []
    said, said_otherwise = says.part(node, then, "then"), says.part(node, otherwise, "else")
    try:
        unless = says.opposite(node, value)
    except (CannotSay, NotRegular):
        unless = False
    if otherwise is True:
        return [any_of([unless, said])]
    holds = says.condition(node, value, "if")
    return [any_of([all_of([holds, said]), all_of([said if unless is False else unless, said_otherwise])])]


def _one_of(says: Says, node: Node, value: list[Schema]) -> list[Schema]:
    """Every option but for what others allow as well. One whose difference can't be said is left out."""
    options = [option for option in value if option is not False]
    said: list[Schema] = []
    missing: CannotSay | NotRegular | None = None
    for index, option in enumerate(options):
        try:
            said.append(_only(says, node, options, index))
        except (CannotSay, NotRegular) as reason:
            missing = reason
    if missing is not None and not said:
        raise missing
    return [any_of(said)]


def _only(says: Says, node: Node, options: list[Schema], index: int) -> Schema:
    """One option and none of the others."""
    own = _as_said(options[index], node, says.document)
    others = [option for at, option in enumerate(options) if at != index]
    clashing = [other for other in others if not says.comparison.disjoint(own, other)]
    nots = [says.opposite(node, other, own) for other in clashing]
    return all_of([says.part(node, options[index], f"oneOf/{index}"), *nots])


def _as_said(option: Schema, node: Node, document: Document) -> Schema:
    """An option with the keys that it is closed to."""
    while isinstance(option, Mapping) and set(option) == {"$ref"}:
        option = document.resolve(option)
    if isinstance(option, bool) or node.way != "closed":
        return option
    names = named_keys(option, document)
    if names is None:
        return option
    return {**option, "properties": {**dict.fromkeys(names, True), **option.get("properties", {})}, "additionalProperties": False}


def _pattern(says: Says, node: Node, value: str) -> list[Schema]:
    split = split_lookahead(value)
    if split is None:
        return [{"pattern": value}]
    must, must_not = split
    return [
        *({"pattern": part} for part in must),
        *({"pattern": (~pattern_language(part)).pattern()} for part in must_not),
    ]


def _format(says: Says, node: Node, value: str) -> list[Schema]:
    name = ALIASES.get(value, value)
    return [{"pattern": FORMATS[name]}] if name in FORMATS else []


RULES: Mapping[str, Rule] = {"not": _not, "if": _if, "oneOf": _one_of, "pattern": _pattern, "format": _format}
