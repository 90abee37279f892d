"""What would let a grammar run into a corner from which no text leads out, found before anything is generated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Node = dict[str, Any]

MAX_KEYS = 4_000
"""Keys of a pattern that are looked at; a pattern that matches more has some that no schema names."""

Refuse = Callable[[str], Exception]


def open_dead_ends(schema: Any, refuse: Refuse) -> None:
    """Takes patterns out of a schema, in place, under which no further key can fall.

    The grammar engine offers a further key wherever there is a pattern for one, also where all the keys that the
    pattern matches are named already; no text follows then.

    Raises:
        Exception: made by `refuse` from a reason: no value satisfies the schema, or none that ends.
    """
    for node in walk(schema):
        for pattern in list(node.get("patternProperties", {})):
            _check_pattern(node, pattern, refuse)
    if not _ends(schema, schema):
        raise refuse("every value of it would go on for ever: a '$ref' leads back to itself")


def _check_pattern(node: Node, pattern: str, refuse: Refuse) -> None:
    patterns, names = node["patternProperties"], node.get("properties", {})
    forbids = patterns[pattern] is False
    if forbids and node.get("additionalProperties", True) is not False:
        return
    keys = _keys(pattern)
    if forbids or (keys is not None and keys <= set(names)):
        value = patterns.pop(pattern)
        names |= {name: {"allOf": [part, value]} for name, part in names.items() if _matches(pattern, name)}
    if not patterns:
        del node["patternProperties"]


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False  # the grammar engine refuses it


def _keys(pattern: str) -> set[str] | None:
    """All the keys that a pattern matches; None if they are not few."""
    try:
        parsed = list(parser.parse(pattern))
    except (re.error, RecursionError, OverflowError):
        return None
    anchors = [(codes.AT, codes.AT_BEGINNING), (codes.AT, codes.AT_END)]
    if len(parsed) < 2 or [parsed[0], parsed[-1]] != anchors:
        return None
    return _texts(parsed[1:-1])


def _texts(parts: list[Any]) -> set[str] | None:
    """All the texts of a sequence of parsed parts."""
    found = {""}
    for part in parts:
        more = _part_texts(part)
        if more is None or len(found) * len(more) > MAX_KEYS:
            return None
        found = {text + end for text in found for end in more}
    return found


def _part_texts(part: Any) -> set[str] | None:
    kind, value = part
    if kind is codes.LITERAL:
        return {chr(value)}
    if kind is codes.SUBPATTERN:
        return _texts(list(value[-1]))
    if kind is codes.BRANCH:
        return _union(_texts(list(branch)) for branch in value[1])
    if kind is codes.IN:
        return _union(_class_texts(item) for item in value)
    if kind is codes.MAX_REPEAT and value[1] <= 16:
        return _union(_texts(list(value[2]) * count) for count in range(value[0], value[1] + 1))
    return None


def _class_texts(item: Any) -> set[str] | None:
    kind, value = item
    if kind is codes.LITERAL:
        return {chr(value)}
    if kind is codes.RANGE and value[1] - value[0] < MAX_KEYS:
        return set(map(chr, range(value[0], value[1] + 1)))
    return None


def _union(sets: Iterator[set[str] | None]) -> set[str] | None:
    found: set[str] = set()
    for texts in sets:
        if texts is None or len(found) > MAX_KEYS:
            return None
        found |= texts
    return found


def _ends(schema: Any, root: Any) -> bool:
    """Whether some value of a schema is finite: the least solution over all that is referred to."""
    references = {node["$ref"] for node in walk(root) if isinstance(node.get("$ref"), str)}
    if not references:
        return True
    ending: set[str] = set()
    while True:
        more = {ref for ref in references - ending if _ends_with(_definition(ref, root), ending)}
        if not more:
            return _ends_with(schema, ending)
        ending |= more


def _definition(reference: str, root: Any) -> Any:
    return root["$defs"][reference.rpartition("/")[2]]


def _ends_with(node: Any, ending: set[str]) -> bool:
    """Whether a schema has a finite value, if what these references lead to has one."""
    if not isinstance(node, Mapping):
        return node is not False
    if "$ref" in node and node["$ref"] not in ending:
        return False
    if not all(_ends_with(part, ending) for part in node.get("allOf", ())):
        return False
    for keyword in ("anyOf", "oneOf"):
        if keyword in node and not any(_ends_with(part, ending) for part in node[keyword]):
            return False
    return _container_ends(node, ending)


def _container_ends(node: Mapping[str, Any], ending: set[str]) -> bool:
    kinds = node.get("type", ())
    if kinds == "object":
        required = node.get("required", ())
        return all(_ends_with(node.get("properties", {}).get(name, True), ending) for name in required)
    if kinds == "array":
        first, least = node.get("prefixItems", ()), node.get("minItems", 0)
        parts = [*first[:least], *([node.get("items", True)] if least > len(first) else [])]
        return all(_ends_with(part, ending) for part in parts)
    return True


def walk(schema: Any) -> Iterator[Node]:
    """All schemas in a rewritten schema, itself included."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in ("properties", "patternProperties", "$defs"):
        for part in schema.get(keyword, {}).values():
            yield from walk(part)
    for keyword in ("anyOf", "allOf", "prefixItems"):
        for part in schema.get(keyword, ()):
            yield from walk(part)
    for keyword in ("items", "additionalProperties"):
        yield from walk(schema.get(keyword))
