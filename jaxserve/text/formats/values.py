"""Values written without quotes, as tags hold them: their schema says whether they are text or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_NAMES = {dict: "object", list: "array", bool: "boolean", int: "integer", float: "number", type(None): "null"}
ALL_TYPES = frozenset({"string", *_NAMES.values()})


def schema_types(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """The types that a schema lets a value have; all when it doesn't say."""
    if not isinstance(schema, Mapping) or depth > 16:
        return ALL_TYPES
    if "$ref" in schema:
        return schema_types(resolve(schema["$ref"], root), root, depth + 1)
    stated = schema.get("type")
    if isinstance(stated, str):
        return frozenset({stated})
    if isinstance(stated, list):
        return frozenset(kind for kind in stated if isinstance(kind, str))
    if "const" in schema or "enum" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return frozenset(map(type_of, values)) if isinstance(values, list) else ALL_TYPES
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            return frozenset().union(*(schema_types(option, root, depth + 1) for option in schema[keyword]))
    if isinstance(schema.get("allOf"), list):
        return frozenset.intersection(ALL_TYPES, *(schema_types(s, root, depth + 1) for s in schema["allOf"]))
    return ALL_TYPES


def resolve(reference: Any, root: Mapping[str, Any]) -> Any:
    """What a `#/...` reference points to; None when it points nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Any = root
    for part in reference.lstrip("#").strip("/").split("/") if reference != "#" else ():
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def type_of(value: Any) -> str:
    """JSON Schema's name of a value's type."""
    return _NAMES.get(type(value), "string")


def is_text(types: frozenset[str]) -> bool:
    """Whether a value of these types is always text, so that it can be passed on before its end is known."""
    return types == {"string"}


def convert(raw: str, types: frozenset[str]) -> Any:
    """The value that a raw text stands for.

    A value that may be text or something else is something else when it is JSON of one of the other types. JSON that
    doesn't parse stays text: the caller's validation then says what is wrong with it.
    """
    if is_text(types):
        return raw
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _spelled_otherwise(raw, types)
    if type_of(value) in types or (type_of(value) == "integer" and "number" in types):
        return value
    return raw if "string" in types else value


def _spelled_otherwise(raw: str, types: frozenset[str]) -> Any:
    """Python's spelling of booleans and None, where the schema expects them."""
    word = raw.strip()
    if "boolean" in types and word in ("True", "False"):
        return word == "True"
    if "null" in types and word == "None":
        return None
    return raw


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
