"""Which values a schema does not allow, as a schema: keyword by keyword, for those whose opposite can be said.

A value violates a schema if it has another type or violates one of its keywords, so the opposite is an `anyOf`. Where
one of its options can't be said it is left out: less is allowed then, never more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jaxserve.text.schemas.disjoint import item_schema, same, values_of
from jaxserve.text.schemas.keywords import SPEAKS_OF, TYPES, types_named
from jaxserve.text.schemas.node import CannotSay, Context, any_of, subsets
from jaxserve.text.schemas.reading import Schema
from jaxserve.text.schemas.regular import NotRegular, other_texts
from jaxserve.text.schemas.strings import ALIASES, ENGINE_FORMATS, FORMATS, own_language, pattern_language

MAX_POSITION = 8
"""Items among which one must be that makes the difference, where arrays may be longer."""
MAX_OPTIONS = 256


@dataclass(frozen=True)
class Speaker:
    """How parts of a schema are said. All of them are open: what must not be is no less because of a further key."""

    yes: Callable[[Schema], Schema]
    no: Callable[[Schema, Context], Schema]
    reference: Callable[[str], Schema]
    """The opposite of a definition."""
    disjoint: Callable[[Schema, Schema], bool]


ANYTHING = Context()


def negate(schema: Schema, speak: Speaker, context: Context = ANYTHING) -> Schema:
    """The opposite of a schema.

    Args:
        schema: read, not yet rewritten.
        speak: see `Speaker`.
        context: the result is right for values that satisfy it, and need not be for others.

    Raises:
        CannotSay: nothing of it can be said.
    """
    if isinstance(schema, bool):
        return not schema
    types = types_named(schema) & context.types
    options: list[Schema] = []
    others = [kind for kind in TYPES if kind not in types and kind in context.types]
    if others:
        options.append({"type": others})
    missing: list[str] = []
    for keyword, value in schema.items():
        if SPEAKS_OF.get(keyword, "any") in {*types, "any"} and keyword != "type":
            _add(options, missing, keyword, lambda k=keyword, v=value: _opposite(k, v, schema, speak, context))  # type: ignore[misc]
    if "integer" in _names(schema) and "number" not in _names(schema) and "number" in context.types:
        missing.append("type")  # numbers with a fraction: no keyword of the engine asks for one
    if missing and not options:
        raise CannotSay(missing[0])
    if len(options) > MAX_OPTIONS:
        raise CannotSay("not")
    return any_of(options)


def _add(options: list[Schema], missing: list[str], keyword: str, make: Callable[[], Iterable[Schema]]) -> None:
    try:
        options += make()
    except (CannotSay, NotRegular):
        missing.append(keyword)


def _names(schema: Mapping[str, Any]) -> list[str]:
    given = schema.get("type", ())
    return [given] if isinstance(given, str) else list(given)


def _opposite(
    keyword: str, value: Any, schema: Mapping[str, Any], speak: Speaker, context: Context
) -> Iterable[Schema]:
    """Options that together are the opposite of one keyword."""
    if keyword in _OBJECTS:
        return _OBJECTS[keyword](value, schema, speak, context)
    return _SAID[keyword](value, schema, speak) if keyword in _SAID else _missing(keyword)


def _missing(keyword: str) -> Iterable[Schema]:
    raise CannotSay(keyword)


def no_values(values: list[Any], speak: Speaker, types: frozenset[str]) -> Schema:
    """All values of some types but some."""
    listed = {kind: values_of({"enum": values}, kind) or [] for kind in TYPES if kind in types}
    others = [kind for kind, found in listed.items() if not found]
    options: list[Schema] = [{"type": others}] if others else []
    for kind, found in listed.items():
        options += _NO_VALUES[kind](found, speak) if found else []
    return any_of(options)


def _no_numbers(values: list[Any], speak: Speaker) -> list[Schema]:
    bounds = sorted(set(values))
    between = [{"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high} for low, high in pairwise(bounds)]
    return [
        {"type": "number", "exclusiveMaximum": bounds[0]},
        *between,
        {"type": "number", "exclusiveMinimum": bounds[-1]},
    ]


def _no_container(values: list[Any], speak: Speaker) -> list[Schema]:
    nots = [speak.no(structure(value), ANYTHING) for value in values]
    kind = "array" if isinstance(values[0], list) else "object"
    return [{"type": kind, "allOf": nots}]


_NO_VALUES: Mapping[str, Callable[[list[Any], Speaker], list[Schema]]] = {
    "null": lambda values, speak: [],
    "boolean": lambda values, speak: [{"const": value} for value in (False, True) if value not in values],
    "number": _no_numbers,
    "string": lambda values, speak: [{"type": "string", "pattern": other_texts(values)}],
    "array": _no_container,
    "object": _no_container,
}


def structure(value: Any) -> Schema:
    """A constant as a schema of its parts."""
    if isinstance(value, list):
        return {
            "type": "array",
            "prefixItems": [structure(item) for item in value],
            "minItems": len(value),
            "maxItems": len(value),
        }
    if isinstance(value, Mapping):
        return {
            "type": "object",
            "properties": {key: structure(part) for key, part in value.items()},
            "required": list(value),
            "additionalProperties": False,
        }
    return {"const": value}


def _no_condition(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
    then, otherwise = schema.get("then", True), schema.get("else", True)
    options: list[Schema] = []
    if then is not True:
        options.append({"allOf": [speak.yes(value), speak.no(then, ANYTHING)]})
    if otherwise is not True:
        options.append({"allOf": [speak.no(value, ANYTHING), speak.no(otherwise, ANYTHING)]})
    return options


def _none_or_two(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
    pairs = [(a, b) for index, a in enumerate(value) for b in value[index + 1 :]]
    if len(pairs) > MAX_OPTIONS:
        raise CannotSay("oneOf")
    both = [{"allOf": [speak.yes(a), speak.yes(b)]} for a, b in pairs]
    return [{"allOf": [speak.no(option, ANYTHING) for option in value]}, *both]


def _some_item(schema: Mapping[str, Any], say: Callable[[int], Schema]) -> list[Schema]:
    most = min(schema.get("maxItems", MAX_POSITION), MAX_POSITION)
    said = [say(index) for index in range(most)]
    return [
        {"type": "array", "prefixItems": [True] * index + [part], "minItems": index + 1}
        for index, part in enumerate(said)
        if part is not False
    ]


def _wrong_item(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
    first = len(schema.get("prefixItems", ()))
    return _some_item(schema, lambda index: speak.no(value, ANYTHING) if index >= first else False)


def _dependent(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
    return [
        {"type": "object", "required": [key], "properties": {need: False}}
        for key, needs in value.items()
        for need in needs
    ]


def _dependent_schemas(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
    return [{"allOf": [{"type": "object", "required": [key]}, speak.no(part, ANYTHING)]} for key, part in value.items()]


def _no_pattern(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
    return [{"type": "string", "pattern": (~pattern_language(value)).pattern()}]


def _no_format(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
    if ALIASES.get(value, value) not in {*FORMATS, *ENGINE_FORMATS}:
        return []
    return [{"type": "string", "pattern": (~own_language({"format": value})).pattern()}]


def _bound(kind: str, keyword: str, shift: int = 0) -> Callable[[Any, Mapping[str, Any], Speaker], list[Schema]]:
    def said(value: Any, schema: Mapping[str, Any], speak: Speaker) -> list[Schema]:
        bound = value + shift
        return [{"type": kind, keyword: bound}] if bound >= 0 or kind == "number" else []

    return said


_SAID: Mapping[str, Callable[[Any, Mapping[str, Any], Speaker], Iterable[Schema]]] = {
    "$ref": lambda value, schema, speak: [speak.reference(value)],
    "not": lambda value, schema, speak: [speak.yes(value)],
    "allOf": lambda value, schema, speak: [speak.no(part, ANYTHING) for part in value],
    "anyOf": lambda value, schema, speak: [{"allOf": [speak.no(part, ANYTHING) for part in value]}],
    "oneOf": _none_or_two,
    "if": _no_condition,
    "then": lambda value, schema, speak: [],
    "else": lambda value, schema, speak: [],
    "minimum": _bound("number", "exclusiveMaximum"),
    "maximum": _bound("number", "exclusiveMinimum"),
    "exclusiveMinimum": _bound("number", "maximum"),
    "exclusiveMaximum": _bound("number", "minimum"),
    "minLength": _bound("string", "maxLength", -1),
    "maxLength": _bound("string", "minLength", 1),
    "pattern": _no_pattern,
    "format": _no_format,
    "minItems": _bound("array", "maxItems", -1),
    "maxItems": _bound("array", "minItems", 1),
    "prefixItems": lambda value, schema, speak: _some_item(
        {"maxItems": len(value)}, lambda index: speak.no(item_schema(schema, index), ANYTHING)
    ),
    "items": _wrong_item,
    "contains": lambda value, schema, speak: (
        [{"type": "array", "items": speak.no(value, ANYTHING)}]
        if not {"minContains", "maxContains"} & set(schema)
        else _missing("contains")
    ),
    "uniqueItems": lambda value, schema, speak: _missing("uniqueItems") if value else [],
    "minContains": lambda value, schema, speak: [],
    "maxContains": lambda value, schema, speak: [],
    "dependentRequired": _dependent,
    "dependentSchemas": _dependent_schemas,
    "minProperties": _bound("object", "maxProperties", -1),
    "maxProperties": _bound("object", "minProperties", 1),
}


def _with(key: str, part: Schema, order: Iterable[str] = ()) -> Schema:
    """Objects with such a value of a key; `order` is that of the keys, where nothing else gives it."""
    if part is False:
        return False
    return {"type": "object", "properties": {**dict.fromkeys(order, True), key: part}, "required": [key]}


def _wrong_property(value: Any, schema: Mapping[str, Any], speak: Speaker, context: Context) -> Iterable[Schema]:
    options: list[Schema] = []
    for key, part in value.items():
        known = context.of(key)
        if part is True or (context.keys is not None and key not in context.keys) or _equal(part, known):
            continue
        wrong = True if speak.disjoint(known, part) else speak.no(part, context_of(known))
        options.append(_with(key, wrong, () if context.properties else value))
    return options


def _equal(one: Schema, other: Schema) -> bool:
    return one is other if isinstance(one, bool) or isinstance(other, bool) else same(one, other)


def context_of(schema: Schema) -> Context:
    """What a schema's own keywords tell."""
    if isinstance(schema, bool):
        return ANYTHING
    is_closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    return Context(
        types_named(schema),
        frozenset(schema.get("properties", ())) if is_closed else None,
        frozenset(schema.get("required", ())),
        schema.get("properties", {}),
    )


def _absent(value: Any, schema: Mapping[str, Any], speak: Speaker, context: Context) -> Iterable[Schema]:
    return [{"type": "object", "properties": {key: False}} for key in value if key not in context.required]


def _wrong_pattern(value: Any, schema: Mapping[str, Any], speak: Speaker, context: Context) -> Iterable[Schema]:
    options: list[Schema] = []
    for pattern, part in value.items():
        if part is True:
            continue
        texts = pattern_language(pattern)
        found = texts.words(16) if context.keys is None else [key for key in sorted(context.keys) if key in texts]
        if found is None:
            raise CannotSay("patternProperties")
        options += [_with(key, speak.no(part, ANYTHING)) for key in found]
    return options


def _wrong_addition(value: Any, schema: Mapping[str, Any], speak: Speaker, context: Context) -> Iterable[Schema]:
    if value is True:
        return []
    named = schema.get("properties", {})
    if context.keys is not None:
        patterns = [pattern_language(pattern) for pattern in schema.get("patternProperties", ())]
        left = [key for key in sorted(context.keys) if key not in named and not any(key in texts for texts in patterns)]
        return [_with(key, speak.no(value, ANYTHING)) for key in left]
    if value is not False or "patternProperties" in schema or len(named) > 4:
        raise CannotSay("additionalProperties")
    return [_more_than(chosen, named) for chosen in subsets(named)]


def _more_than(chosen: tuple[str, ...], named: Iterable[str]) -> Schema:
    """Objects that have these of the named keys, and one that has no name."""
    properties: dict[str, Schema] = {key: key in chosen for key in named}
    return {
        "type": "object",
        "properties": properties,
        "required": list(chosen),
        "additionalProperties": True,
        "minProperties": len(chosen) + 1,
    }


def _wrong_name(value: Any, schema: Mapping[str, Any], speak: Speaker, context: Context) -> Iterable[Schema]:
    if context.keys is None or not isinstance(value, Mapping):
        raise CannotSay("propertyNames")
    texts = own_language(value)
    listed = values_of(value, "string")
    if set(value) - {"type", "pattern", "minLength", "maxLength", "enum", "const"}:
        raise CannotSay("propertyNames")
    wrong = [key for key in sorted(context.keys) if key not in texts or (listed is not None and key not in listed)]
    return [_with(key, True) for key in wrong]


_OBJECTS: Mapping[str, Callable[[Any, Mapping[str, Any], Speaker, Context], Iterable[Schema]]] = {
    "const": lambda value, schema, speak, context: [no_values([value], speak, context.types)],
    "enum": lambda value, schema, speak, context: [no_values(value, speak, context.types)],
    "required": _absent,
    "properties": _wrong_property,
    "patternProperties": _wrong_pattern,
    "additionalProperties": _wrong_addition,
    "propertyNames": _wrong_name,
}
