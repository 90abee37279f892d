"""Whether two schemas share no value, as far as that shows without much work. A yes is a proof, a no is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from jaxserve.text.schemas.keywords import TYPES, is_number, type_of, types_named
from jaxserve.text.schemas.reading import Document, Schema
from jaxserve.text.schemas.regular import NotRegular
from jaxserve.text.schemas.strings import own_language

MAX_STEPS = 20_000
"""Of all comparisons of one document: pairs of schemas that are looked at."""
MAX_DEPTH = 8


class Comparison:
    """Compares schemas of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._steps = 0
        self._known: dict[tuple[int, int], bool] = {}
        self._types: dict[int, frozenset[str]] = {}
        self._seen: list[Schema] = []
        """Kept alive: what is known goes by their ids."""

    def disjoint(self, one: Schema, other: Schema) -> bool:
        """Whether no value satisfies both."""
        return self._disjoint(one, other, 0)

    def types(self, schema: Schema, depth: int = 0) -> frozenset[str]:
        """The types that a schema's values may have; it may have no values of some."""
        if isinstance(schema, bool):
            return frozenset(TYPES) if schema else frozenset()
        if id(schema) not in self._types:
            found = self._find_types(schema, depth)
            if depth:
                return found
            self._types[id(schema)] = found
            self._seen.append(schema)
        return self._types[id(schema)]

    def _find_types(self, schema: Mapping[str, Any], depth: int) -> frozenset[str]:
        found = types_named(schema)
        if "const" in schema:
            found &= {type_of(schema["const"])}
        if "enum" in schema:
            found &= {type_of(value) for value in schema["enum"]}
        if depth > MAX_DEPTH:
            return found
        parts = [*schema.get("allOf", ()), *([self._document.resolve(schema)] if "$ref" in schema else [])]
        for part in parts:
            found &= self.types(part, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema and found:
                found &= frozenset().union(*(self.types(part, depth + 1) for part in schema[keyword]))
        return found

    def _disjoint(self, one: Schema, other: Schema, depth: int) -> bool:
        if one is False or other is False:
            return True
        if isinstance(one, bool) or isinstance(other, bool):
            return False
        key = (id(one), id(other))
        if key not in self._known:
            if self._steps > MAX_STEPS or depth > MAX_DEPTH:
                return False
            self._steps += 1
            self._known[key] = False  # while it is asked: schemas may lead back to themselves
            self._seen += [one, other]
            self._known[key] = self._compared(one, other, depth)
        return self._known[key]

    def _compared(self, one: dict[str, Any], other: dict[str, Any], depth: int) -> bool:
        common = self.types(one) & self.types(other)
        return (
            not common
            or all(self._apart(kind, one, other, depth) for kind in common)
            or self._parts(one, other, depth)
            or self._parts(other, one, depth)
        )

    def _parts(self, one: dict[str, Any], other: dict[str, Any], depth: int) -> bool:
        """Whether a part that all values of the one satisfy is apart from the other."""
        parts = list(one.get("allOf", ()))
        if "$ref" in one:
            parts.append(self._document.resolve(one))
        if any(self._disjoint(part, other, depth + 1) for part in parts):
            return True
        return any(
            all(self._disjoint(part, other, depth + 1) for part in one[keyword])
            for keyword in ("anyOf", "oneOf")
            if keyword in one
        )

    def _apart(self, kind: str, one: Mapping[str, Any], other: Mapping[str, Any], depth: int) -> bool:
        """Whether the values of one type are apart."""
        values, others = values_of(one, kind), values_of(other, kind)
        if values is not None and others is not None:
            return not any(same(value, against) for value in values for against in others)
        if kind == "number":
            return _numbers_apart(one, other)
        if kind == "string":
            return _texts_apart(one, other)
        if kind == "array":
            return self._arrays_apart(one, other, depth)
        return kind == "object" and self._objects_apart(as_object(one), as_object(other), depth)

    def _arrays_apart(self, one: Mapping[str, Any], other: Mapping[str, Any], depth: int) -> bool:
        least = max(one.get("minItems", 0), other.get("minItems", 0))
        if least > min(one.get("maxItems", math.inf), other.get("maxItems", math.inf)):
            return True
        return any(
            self._disjoint(item_schema(one, index), item_schema(other, index), depth + 1)
            for index in range(min(least, 16))
        )

    def _objects_apart(self, one: Mapping[str, Any], other: Mapping[str, Any], depth: int) -> bool:
        required = dict.fromkeys([*one.get("required", ()), *other.get("required", ())])
        return any(
            self._disjoint(property_schema(one, key), property_schema(other, key), depth + 1) for key in required
        )


_FEW: Mapping[str, list[Any]] = {"boolean": [False, True], "null": [None]}


def values_of(schema: Mapping[str, Any], kind: str) -> list[Any] | None:
    """The values of a type, where a schema lists them."""
    if "const" in schema:
        return [schema["const"]] if type_of(schema["const"]) == kind else []
    if "enum" in schema:
        return [value for value in schema["enum"] if type_of(value) == kind]
    return _FEW.get(kind)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0 and not true."""
    if type_of(one) != type_of(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def as_object(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema of listed objects as one of their keys, where it lists one."""
    value = schema["const"] if "const" in schema else (schema.get("enum") or [None])[0]
    if isinstance(value, Mapping) and len(schema.get("enum", [value])) == 1:
        return {"required": list(value), "properties": {key: {"const": part} for key, part in value.items()}}
    return schema


def property_schema(schema: Mapping[str, Any], key: str) -> Schema:
    """What a schema's own keywords say of the value of a key, or more."""
    if key in schema.get("properties", {}):
        return cast(Schema, schema["properties"][key])
    return True if "patternProperties" in schema else cast(Schema, schema.get("additionalProperties", True))


def item_schema(schema: Mapping[str, Any], index: int) -> Schema:
    """What a schema's own keywords say of an item, or more."""
    first = schema.get("prefixItems", ())
    return cast(Schema, first[index] if index < len(first) else schema.get("items", True))


def interval(schema: Mapping[str, Any]) -> tuple[tuple[float, int], tuple[float, int]]:
    """The least and the greatest number: (number, 1 if just above it), (number, -1 if just below it)."""
    least, most = (-math.inf, 0), (math.inf, 0)
    for keyword, open_ in (("minimum", 0), ("exclusiveMinimum", 1)):
        if keyword in schema:
            least = max(least, (schema[keyword], open_))
    for keyword, open_ in (("maximum", 0), ("exclusiveMaximum", -1)):
        if keyword in schema:
            most = min(most, (schema[keyword], open_))
    return least, most


def _numbers_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    for first, second in ((one, other), (other, one)):
        values = values_of(first, "number")
        if values is not None:
            least, most = interval(second)
            return all((value, 0) < least or (value, 0) > most for value in values if is_number(value))
    (least, most), (low, high) = interval(one), interval(other)
    return max(least, low) > min(most, high)


def _texts_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    try:
        for first, second in ((one, other), (other, one)):
            values = values_of(first, "string")
            if values is not None:
                texts = own_language(second)
                return not any(value in texts for value in values)
        return not own_language(one).meets(own_language(other))
    except NotRegular:
        return False
