"""Keywords that the grammar engine lacks, said in keywords that it has: exactly, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

MAX_UNIQUE = 5
"""Values of an `enum` whose arrangements are written out: 5 have 326, 6 would have 1,957."""

Schema = Mapping[str, Any]


def rewrite(schema: Schema) -> Schema:
    """A schema that allows the same values, with fewer keywords the grammar engine lacks. Its parts are left alone."""
    for step in (_dependent_required, _unique_items, _not):
        schema = step(schema)
    return schema


def _dependent_required(schema: Schema) -> Schema:
    """A key that brings others with it is absent, or they are required."""
    given = schema.get("dependentRequired")
    if not (_names_keys(schema) and isinstance(given, Mapping) and all(map(_is_names, given.values()))):
        return schema
    conditions = [
        {"anyOf": [{"properties": {key: False}}, {"required": [*needs]}]} for key, needs in given.items() if needs
    ]
    return _with(schema, "dependentRequired", conditions)


def _unique_items(schema: Schema) -> Schema:
    """Arrays that have one item at most, or items of a small `enum`."""
    if schema.get("uniqueItems") is not True or schema.get("prefixItems"):
        return schema
    rest = {key: value for key, value in schema.items() if key != "uniqueItems"}
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most in (0, 1):
        return rest
    items = schema.get("items")
    if not isinstance(items, Mapping) or not set(items) <= {"enum", "type"}:
        return schema
    values = items.get("enum")
    if schema.get("type") != "array" or not isinstance(values, list) or len(values) > MAX_UNIQUE:
        return schema
    if not all(isinstance(value, str) for value in values) or items.get("type", "string") != "string":
        return schema
    counts = range(least, min(len(values) if most is None else most, len(values)) + 1)
    return {"enum": [list(chosen) for count in counts for chosen in permutations(dict.fromkeys(values), count)]}


def _not(schema: Schema) -> Schema:
    """Values of an `enum` less others, and objects without a key."""
    given = schema.get("not")
    if not isinstance(given, Mapping):
        return schema
    if set(given) == {"required"} and _is_names(given["required"]) and len(given["required"]) == 1:
        return _with(schema, "not", [{"properties": {given["required"][0]: False}}]) if _names_keys(schema) else schema
    if set(given) in ({"enum"}, {"const"}) and isinstance(schema.get("enum"), list):
        banned = given["enum"] if "enum" in given else [given["const"]]
        if isinstance(banned, list) and all(isinstance(value, str) for value in (*banned, *schema["enum"])):
            rest = {key: value for key, value in schema.items() if key != "not"}
            return {**rest, "enum": [value for value in schema["enum"] if value not in banned]}
    return schema


def _with(schema: Schema, instead_of: str, conditions: list[dict[str, Any]]) -> Schema:
    rest = {key: value for key, value in schema.items() if key != instead_of}
    return {**rest, "allOf": [*rest.get("allOf", ()), *conditions]} if conditions else rest


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _names_keys(schema: Schema) -> bool:
    """Whether it is about objects that name their keys: a key said to be absent closes no open object then."""
    return schema.get("type") == "object" and "properties" in schema
