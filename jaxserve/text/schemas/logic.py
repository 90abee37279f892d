"""Keywords that combine schemas: `not`, `if`, `oneOf`, and patterns with look-ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxserve.text.schemas.closing import named_keys
from jaxserve.text.schemas.node import CannotSay, Context, Node, Rule, Says, all_of, any_of
from jaxserve.text.schemas.reading import Schema
from jaxserve.text.schemas.regular import NotRegular
from jaxserve.text.schemas.strings import ALIASES, FORMATS, pattern_language, split_lookahead

MAX_PRODUCT = 64
"""Combinations of reasons why none of the other options of a `oneOf` holds."""


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
    options: list[Schema] = [option for option in value if option is not False]
    said: list[Schema] = []
    missing: CannotSay | NotRegular | None = None
    for index in range(len(options)):
        try:
            said.append(_only(says, node, options, index))
        except (CannotSay, NotRegular) as reason:
            missing = reason
    whole = any_of(said)
    if missing is not None and whole is False:
        raise missing
    return [whole]


def _only(says: Says, node: Node, options: list[Schema], index: int) -> Schema:
    """One option and none of the others."""
    option = options[index]
    own = _as_said(says, node, option)
    others = [other for at, other in enumerate(options) if at != index]
    clashing = [other for other in others if not says.comparison.disjoint(own, _flat(says, other))]
    nots = none_of([says.opposite(node, other, own) for other in clashing])
    return all_of([says.part(node, option, f"oneOf/{index}"), nots])


def none_of(nots: list[Schema]) -> Schema:
    """All of several opposites, with what they have in common said once: their options multiply in the grammar engine.

    Where the rest would be too many, only what they have in common is kept.
    """
    options = [
        schema["anyOf"] if isinstance(schema, dict) and set(schema) == {"anyOf"} else [schema] for schema in nots
    ]
    if len(options) < 2:
        return all_of(nots)
    common = [option for option in options[0] if all(option in others for others in options[1:])]
    left = [[option for option in each if option not in common] for each in options]
    number = math.prod(map(len, left))
    if not common:
        return all_of(nots)
    rest = all_of([any_of(each) for each in left]) if 0 < number <= MAX_PRODUCT else False
    return any_of([*common, rest])


def _as_said(says: Says, node: Node, option: Schema) -> Schema:
    """An option with what its surroundings say of it, and with the keys that it is closed to."""
    option = _resolved(says, option)
    if isinstance(option, bool):
        return option
    context = says.context(node, option)
    names = named_keys(option, says.document) if node.way == "closed" else None
    keys = context.keys if names is None else frozenset(names)
    return _merged(option, context, keys)


def _flat(says: Says, option: Schema) -> Schema:
    option = _resolved(says, option)
    if isinstance(option, bool) or not ("allOf" in option or "$ref" in option):
        return option
    context = says.context(Node({}, "open", "", None, frozenset()), option)
    return _merged(option, context, context.keys)


def _resolved(says: Says, schema: Schema) -> Schema:
    while isinstance(schema, Mapping) and set(schema) == {"$ref"}:
        schema = says.document.resolve(schema)
    return schema


def _merged(option: dict[str, Any], context: Context, keys: frozenset[str] | None) -> Schema:
    properties = {**context.properties, **option.get("properties", {})}
    merged = {**option, "required": sorted(context.required), "properties": properties}
    if keys is None:
        return merged
    closed = {key: properties.get(key, True) for key in sorted(keys)}
    return {**merged, "properties": closed, "additionalProperties": False}


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
