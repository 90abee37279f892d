"""Keywords about objects that the grammar engine lacks, or has for some objects only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from jaxserve.text.schemas.closing import about_one_value
from jaxserve.text.schemas.node import CannotSay, Node, Rule, Says, all_of, any_of, subsets, types_but
from jaxserve.text.schemas.patterns import language
from jaxserve.text.schemas.reading import Document, Schema
from jaxserve.text.schemas.regular import Language, NotRegular, escaped
from jaxserve.text.schemas.strings import own_language, pattern_language

MAX_CHOICES = 128
"""Selections of an object's keys that are written out."""
MAX_PATTERNS = 4
"""Patterns for keys of one object that may overlap."""
MAX_VARIANTS = 32
_TEXT_KEYWORDS = frozenset({"type", "pattern", "minLength", "maxLength", "format"})


def close(said: dict[str, Any], names: Iterable[str]) -> None:
    """Makes these the only keys of an object."""
    own = said.get("properties", {})
    said["properties"] = {**own, **{name: True for name in names if name not in own}}
    said["additionalProperties"] = False


def _dependent_required(says: Says, node: Node, value: Mapping[str, list[str]]) -> list[Schema]:
    """A key that brings others with it is absent, or they are required."""
    return [any_of([{"properties": {key: False}}, {"required": [*needs]}]) for key, needs in value.items() if needs]


def _dependent_schemas(says: Says, node: Node, value: Mapping[str, Schema]) -> list[Schema]:
    return [
        any_of([{"properties": {key: False}}, says.part(node, part, f"dependentSchemas/{key}")])
        for key, part in value.items()
        if part is not True
    ]


def _property_names(says: Says, node: Node, value: Schema) -> list[Schema]:
    if value is True:
        return []
    names, pattern = _names(says, value)
    if names is not None:
        return [{"properties": dict.fromkeys(names, True), "additionalProperties": False}]
    return [{"patternProperties": {pattern: True}, "additionalProperties": False}]


def _names(says: Says, value: Schema) -> tuple[list[str] | None, str]:
    """The texts that a schema allows: listed, or a pattern of them."""
    while isinstance(value, Mapping) and set(value) == {"$ref"}:
        value = says.document.resolve(value)
    if value is False:
        return [], ""
    assert isinstance(value, Mapping)
    texts = _texts(says, value)
    for listed in (value.get("enum"), [value["const"]] if "const" in value else None):
        if listed is not None:
            return [name for name in listed if isinstance(name, str) and name in texts], ""
    if set(value) - {"type"} == {"pattern"} and "(?" not in value["pattern"]:
        return None, value["pattern"]
    return None, texts.pattern()


def _texts(says: Says, value: Schema) -> Language:
    """The texts that a schema allows.

    Raises:
        CannotSay: it can't be told.
        NotRegular: the same.
    """
    if isinstance(value, bool):
        return language("") if value else ~language("")
    if "string" not in says.comparison.types(value):
        return ~language("")
    found = own_language(value)
    for keyword, part in value.items():
        if keyword == "not":
            found &= ~_texts(says, part)
        elif keyword == "$ref":
            found &= _texts(says, says.document.definitions[part])
        elif keyword == "allOf":
            for option in part:
                found &= _texts(says, option)
        elif keyword == "anyOf":
            missing = language("")
            for option in part:
                missing &= ~_texts(says, option)
            found &= ~missing
        elif keyword in ("enum", "const"):
            found &= _listed(part if keyword == "enum" else [part])
        elif keyword not in _TEXT_KEYWORDS:
            raise CannotSay("propertyNames")
    return found


def _listed(values: list[Any]) -> Language:
    words = [value for value in values if isinstance(value, str)]
    return pattern_language("^(?:" + "|".join(map(escaped, words)) + ")$") if words else ~language("")


def apart(patterns: Mapping[str, Schema]) -> dict[str, Schema]:
    """Patterns of keys such that no key matches two of them, with the same meaning.

    Raises:
        NotRegular: it can't be told what they match.
    """
    if len(patterns) < 2:
        return dict(patterns)
    texts = {pattern: pattern_language(pattern) for pattern in patterns}
    clashing = [
        pattern
        for pattern in patterns
        if any(other != pattern and texts[pattern].meets(texts[other]) for other in patterns)
    ]
    if not clashing:
        return dict(patterns)
    if len(clashing) > MAX_PATTERNS:
        raise NotRegular("too many")
    found = {pattern: schema for pattern, schema in patterns.items() if pattern not in clashing}
    for count in range(1, len(clashing) + 1):
        for chosen in combinations(clashing, count):
            cell = language("")
            for pattern in clashing:
                cell &= texts[pattern] if pattern in chosen else ~texts[pattern]
            if not cell.empty:
                found[cell.pattern()] = all_of([patterns[pattern] for pattern in chosen])
    return found


def counted(said: dict[str, Any], node: Node, document: Document) -> list[Schema]:
    """What `minProperties` and `maxProperties` say, where the grammar engine can't count: beside optional keys."""
    least, most = said.get("minProperties", 0), said.get("maxProperties", math.inf)
    if least == 0 and most == math.inf:
        return []
    if most == 0:
        said.pop("maxProperties")
        return [{"additionalProperties": False}] if least == 0 else [types_but("object")]
    parts = list(about_one_value(node.given, document))
    required = {
        name for part in about_one_value(node.given, document, conditions=False) for name in part.get("required", ())
    }
    named = dict.fromkeys(name for part in parts for name in (*part.get("properties", ()), *part.get("required", ())))
    optional = [name for name in named if name not in required]
    is_closed = said.get("additionalProperties") is False and "patternProperties" not in said
    if least <= len(required):
        least = said.pop("minProperties", 0) and 0
    if is_closed and most >= len(named):
        most = said.pop("maxProperties", math.inf) and math.inf
    if not optional or (least == 0 and most == math.inf):
        return []
    said.pop("minProperties", None)
    said.pop("maxProperties", None)
    return [any_of([types_but("object"), *_choices(optional, len(required), least, most, is_closed=is_closed)])]


def _choices(optional: list[str], present: int, least: int, most: float, *, is_closed: bool) -> list[Schema]:
    """Objects by which of the optional keys they have."""
    need = max(least - present, 0)
    if most == math.inf and is_closed and math.comb(len(optional), need) <= MAX_CHOICES:
        return [{"type": "object", "required": list(chosen)} for chosen in combinations(optional, need)]
    if most == math.inf and need == 1 and len(optional) <= MAX_CHOICES:
        unnamed = {"type": "object", "properties": dict.fromkeys(optional, False), "minProperties": present + 1}
        return [*({"type": "object", "required": [name]} for name in optional), unnamed]
    counts = range(int(min(len(optional), most - present)) + 1)
    if sum(math.comb(len(optional), count) for count in counts) > MAX_CHOICES:
        raise CannotSay("minProperties" if least else "maxProperties")
    return [
        _exactly(chosen, optional, least, most)
        for count in counts
        for chosen in combinations(optional, count)
        if count >= need or not is_closed
    ]


def _exactly(chosen: tuple[str, ...], optional: list[str], least: int, most: float) -> Schema:
    bounds = ({"minProperties": least} if least else {}) | ({"maxProperties": int(most)} if most < math.inf else {})
    absent: dict[str, Schema] = {name: False for name in optional if name not in chosen}
    return {"type": "object", "required": list(chosen), "properties": absent, **bounds}


def evaluated_variants(node: dict[str, Any], document: Document) -> list[dict[str, Any]] | None:
    """A schema with `unevaluatedProperties` as several that have `additionalProperties` instead.

    Which keys count as evaluated depends on which options hold: each variant says so. None where nothing is to be done.

    Raises:
        CannotSay: there are too many of them.
    """
    value = node.get("unevaluatedProperties", True)
    if value is True:
        return None if "unevaluatedProperties" not in node else [_without(node, "unevaluatedProperties")]
    variants = [_without(node, "unevaluatedProperties")]
    while any(_splits(variant) for variant in variants):
        variants = [part for variant in variants for part in (_split(variant) if _splits(variant) else [variant])]
        if len(variants) > MAX_VARIANTS:
            raise CannotSay("unevaluatedProperties")
    return [_evaluated(variant, value, document) for variant in variants]


def _without(node: Mapping[str, Any], *keywords: str) -> dict[str, Any]:
    return {keyword: value for keyword, value in node.items() if keyword not in keywords}


def _splits(node: Mapping[str, Any]) -> bool:
    return any(keyword in node for keyword in ("anyOf", "oneOf", "if", "dependentSchemas")) or any(
        isinstance(part, Mapping) and _splits(part) for part in node.get("allOf", ())
    )


def _split(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One level of alternatives as so many schemas."""

    def plus(rest: Mapping[str, Any], *parts: Schema) -> dict[str, Any]:
        return {**rest, "allOf": [*rest.get("allOf", ()), *parts]}

    for keyword in ("anyOf", "oneOf"):
        if keyword in node:
            rest, options = _without(node, keyword), node[keyword]
            if keyword == "anyOf":
                chosen = [each for each in subsets(range(len(options))) if each] if len(options) <= 3 else []
                return [
                    plus(rest, *(options[i] for i in each)) for each in chosen or [(i,) for i in range(len(options))]
                ]
            others = [[{"not": other} for j, other in enumerate(options) if j != i] for i in range(len(options))]
            return [plus(rest, option, *others[i]) for i, option in enumerate(options)]
    if "if" in node:
        rest = _without(node, "if", "then", "else")
        return [
            plus(rest, node["if"], node.get("then", True)),
            plus(rest, {"not": node["if"]}, node.get("else", True)),
        ]
    if "dependentSchemas" in node:
        (key, part), *left = node["dependentSchemas"].items()
        rest = _without(node, "dependentSchemas") | ({"dependentSchemas": dict(left)} if left else {})
        return [plus(rest, {"required": [key]}, part), plus(rest, {"properties": {key: False}})]
    for index, part in enumerate(node["allOf"]):
        if isinstance(part, Mapping) and _splits(part):
            before, after = node["allOf"][:index], node["allOf"][index + 1 :]
            return [{**node, "allOf": [*before, option, *after]} for option in _split(part)]
    raise CannotSay("unevaluatedProperties")


def _evaluated(node: dict[str, Any], value: Schema, document: Document) -> dict[str, Any]:
    """A schema without alternatives: what its parts don't name is unevaluated."""
    parts = list(about_one_value(node, document))
    if any(_splits(part) for part in parts):
        raise CannotSay("unevaluatedProperties")
    if any("additionalProperties" in part or "unevaluatedProperties" in part for part in parts):
        return node
    names = dict.fromkeys(name for part in parts for name in part.get("properties", ()))
    patterns = dict.fromkeys(name for part in parts for name in part.get("patternProperties", ()))
    own, matched = node.get("properties", {}), node.get("patternProperties", {})
    return {
        **node,
        "properties": {**own, **{name: True for name in names if name not in own}},
        "patternProperties": {**matched, **{name: True for name in patterns if name not in matched}},
        "additionalProperties": value,
    }


RULES: Mapping[str, Rule] = {
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "propertyNames": _property_names,
}
__all__ = ["RULES", "apart", "close", "counted", "evaluated_variants"]
