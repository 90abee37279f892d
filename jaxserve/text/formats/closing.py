"""Which keys the objects of a schema may have beyond those that it names.

A schema with `properties` means these keys and no others, unless it says otherwise with `additionalProperties`,
`patternProperties` or `unevaluatedProperties`: the rule that Fireworks documents. Models that are free to invent keys
do so until they run out of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxserve.text.formats.values import resolve

_SAYS_OTHERWISE = ("additionalProperties", "patternProperties", "unevaluatedProperties")
_OPTIONS = ("anyOf", "oneOf")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("allOf", *_OPTIONS, "prefixItems")
_SINGLES = ("items", "additionalProperties")

Node = dict[str, Any]


def close_objects(schema: Any) -> None:
    """Closes the objects of a schema, in place. It must be bounded (`clean_schema`).

    Several schemas about one object (`allOf`, or `properties` beside `anyOf` or `$ref`) are closed together, over all
    the keys that any of them names. A definition that such schemas refer to stays open for whoever else refers to it.
    """
    nodes = list(walk(schema))
    parts = {id(node): list(_about_one_value(node, schema, set())) for node in nodes if _is_compound(node)}
    shared = {id(part) for found in parts.values() for part in found[1:]}
    for node in nodes:
        if id(node) not in shared:
            _close(node, parts.get(id(node), [node]))


def _close(node: Node, parts: list[Node]) -> None:
    if any(keyword in part for part in parts for keyword in _SAYS_OTHERWISE):
        return
    if any("properties" in part for part in parts):
        own = node.get("properties", {})
        names = {name: True for part in parts for name in part.get("properties", {}) if name not in own}
        node |= {"properties": {**own, **names}, "additionalProperties": False}


def _is_compound(node: Node) -> bool:
    """Whether several schemas speak about its value at the same time."""
    if "allOf" in node:
        return len(node["allOf"]) > 1 or "properties" in node or any(keyword in node for keyword in _OPTIONS)
    return "properties" in node and ("$ref" in node or any(keyword in node for keyword in _OPTIONS))


def _about_one_value(node: Any, root: Mapping[str, Any], seen: set[int]) -> Iterator[Node]:
    """The node, and all schemas that speak about the same value."""
    if not isinstance(node, dict) or id(node) in seen:
        return
    seen.add(id(node))
    yield node
    for keyword in ("allOf", *_OPTIONS):
        for part in node.get(keyword, ()):
            yield from _about_one_value(part, root, seen)
    if "$ref" in node:
        yield from _about_one_value(resolve(node["$ref"], root), root, seen)


def walk(schema: Any) -> Iterator[Node]:
    """All schemas in a schema, itself included."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in _MAPS:
        for part in schema.get(keyword, {}).values():
            yield from walk(part)
    for keyword in _LISTS:
        for part in schema.get(keyword, ()):
            yield from walk(part)
    for keyword in _SINGLES:
        yield from walk(schema.get(keyword))
