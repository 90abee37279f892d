"""The keywords of JSON Schema: what their values are, which values they speak about, and what they say nothing by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

TYPES = ("null", "boolean", "number", "string", "array", "object")
MAPS = ("properties", "patternProperties", "dependentSchemas")
"""Keywords whose values map names to schemas."""
LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
SINGLES = (
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
)
COUNTS = (
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
)
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
SPEAKS_OF: Mapping[str, str] = {
    **dict.fromkeys(NUMBERS, "number"),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(
        ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "unevaluatedItems"), "array"
    ),
    **dict.fromkeys(
        (
            "properties",
            "patternProperties",
            "additionalProperties",
            "required",
            "minProperties",
            "maxProperties",
            "propertyNames",
            "dependentRequired",
            "dependentSchemas",
            "unevaluatedProperties",
        ),
        "object",
    ),
}
"""The type of values that a keyword constrains; values of other types it allows."""


def is_number(value: Any) -> bool:
    """Whether a value is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_names(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_count(value: Any) -> bool:
    return is_number(value) and value >= 0 and value == int(value)


def _is_type(value: Any) -> bool:
    return isinstance(value, str) or (is_names(value) and bool(value))


PLAIN: Mapping[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "const": lambda value: True,
    "enum": lambda value: isinstance(value, list),
    "required": is_names,
    "dependentRequired": lambda value: isinstance(value, Mapping) and all(map(is_names, value.values())),
    "uniqueItems": lambda value: isinstance(value, bool),
    "pattern": lambda value: isinstance(value, str),
    "format": lambda value: isinstance(value, str),
    **dict.fromkeys(COUNTS, _is_count),
    **dict.fromkeys(NUMBERS, is_number),
}
"""The other keywords that say which values are valid, with what their own values must be. All others say nothing."""


def type_of(value: Any) -> str:
    """JSON Schema's name of a value's type; integers are numbers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, Mapping) else "number"


def types_named(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that the keyword `type` lets a value have; integers count as numbers."""
    given = schema.get("type", TYPES)
    names = (given,) if isinstance(given, str) else given
    return frozenset("number" if name == "integer" else name for name in names)
