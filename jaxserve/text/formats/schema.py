"""JSON Schemas before they become grammars: bounded, without what the grammar can't enforce."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.closing import close_objects
from jaxserve.text.formats.dead_ends import open_dead_ends
from jaxserve.text.formats.rewriting import rewrite

MAX_DEPTH = 64
MAX_NODES = 20_000
MAX_CHARS = 1_000_000
MAX_PROPERTIES = 2_000
"""Of one object: each makes every mask of the grammar dearer."""

LAYOUT_KEYWORD = "x-guidance"
"""The grammar engine's own keyword: at the root of an answer's schema it chooses the layout, elsewhere it can't."""
_UNSUPPORTED = {
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
    "$recursiveAnchor",
}
_ANNOTATIONS = {
    "$schema",
    "$comment",
    "$anchor",
    "$dynamicAnchor",
    "$vocabulary",
    "default",
    "examples",
    "title",
    "description",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
}
"""What says nothing about which values are valid, as JSON Schema defines it."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_SINGLES = ("items", "additionalProperties")
_FORMATS = {
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
    "unknown",
}


@dataclass
class _Walk:
    """One schema's walk."""

    place: str
    relax: bool
    relaxed: list[str] = field(default_factory=list)
    nodes: int = 0

    def count(self, parts: int) -> None:
        """Counts parts of the schema; too many are an error."""
        self.nodes += parts
        if self.nodes > MAX_NODES:
            raise InvalidRequest(self.place, f"{self.place}: the schema has more than {MAX_NODES} parts")

    def refuse(self, keyword: str, path: str, why: str) -> None:
        """Refuses a keyword, or notes that it is left out."""
        if not self.relax:
            raise InvalidRequest(self.place, f"{self.place}: {why} ({keyword!r} at {path or 'the root'})")
        self.relaxed.append(f"{path}/{keyword}")


def load_schema(given: Any, place: str) -> dict[str, Any] | bool:
    """A schema from the request: an object, a boolean, or the JSON text of one.

    Raises:
        InvalidRequest: it is none of these.
    """
    if isinstance(given, str):
        if len(given) > MAX_CHARS:
            raise InvalidRequest(place, f"{place}: the schema is longer than {MAX_CHARS} characters")
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise InvalidRequest(place, f"{place}: is not JSON") from None
    if isinstance(given, bool):
        return given
    if not isinstance(given, Mapping):
        raise InvalidRequest(place, f"{place}: must be a JSON Schema (an object)")
    return dict(given)


def clean_schema(schema: Any, place: str, *, relax: bool = False) -> tuple[Any, tuple[str, ...]]:
    """A schema that the grammar enforces completely, and the keywords left out of it.

    Args:
        schema: as given by the request.
        place: the request field, for messages.
        relax: leave unsupported keywords out instead of refusing them.

    Raises:
        InvalidRequest: a keyword that can't be enforced, or a schema too large or deep.
    """
    walk = _Walk(place, relax)
    cleaned = _clean(schema, "", 0, walk)
    close_objects(cleaned)
    open_dead_ends(cleaned, lambda why: InvalidRequest(place, f"{place}: not supported: {why}"))
    return cleaned, tuple(walk.relaxed)


def _clean(schema: Any, path: str, depth: int, walk: _Walk) -> Any:
    walk.count(1)
    if depth > MAX_DEPTH:
        raise InvalidRequest(walk.place, f"{walk.place}: the schema is nested deeper than {MAX_DEPTH} levels")
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, Mapping):
        raise InvalidRequest(walk.place, f"{walk.place}: not a schema at {path or 'the root'}")
    cleaned: dict[str, Any] = {}
    for keyword, value in rewrite(schema).items():
        if keyword in _ANNOTATIONS or (keyword == "format" and value not in _FORMATS):
            continue
        if keyword == LAYOUT_KEYWORD:
            walk.refuse(keyword, path, "only {'whitespace_flexible': true or false}, at the root of response_format")
        elif keyword in _UNSUPPORTED or (keyword == "uniqueItems" and value is True):
            walk.refuse(keyword, path, "keyword not supported in structured output")
        elif keyword == "uniqueItems":
            continue
        else:
            name, kept = _keyword(keyword, value, path, depth, walk)
            cleaned[name] = kept
    return cleaned


def _keyword(keyword: str, value: Any, path: str, depth: int, walk: _Walk) -> tuple[str, Any]:
    here = f"{path}/{keyword}"
    descend: Callable[[Any, str], Any] = lambda part, at: _clean(part, at, depth + 1, walk)  # noqa: E731
    if keyword in _MAPS:
        if not isinstance(value, Mapping):
            raise InvalidRequest(walk.place, f"{walk.place}: {keyword!r} must be an object at {path or 'the root'}")
        if len(value) > MAX_PROPERTIES:
            raise InvalidRequest(
                walk.place, f"{walk.place}: more than {MAX_PROPERTIES} {keyword!r} at {path or 'the root'}"
            )
        return keyword, {name: descend(part, f"{here}/{name}") for name, part in value.items()}
    if keyword in _LISTS or (keyword == "items" and isinstance(value, list)):
        if not isinstance(value, list):
            raise InvalidRequest(walk.place, f"{walk.place}: {keyword!r} must be an array at {path or 'the root'}")
        # Before draft 2020-12, `prefixItems` was an array under `items`.
        return "prefixItems" if keyword == "items" else keyword, [
            descend(part, f"{here}/{index}") for index, part in enumerate(value)
        ]
    if keyword in _SINGLES:
        return keyword, descend(value, here)
    if keyword == "additionalItems":
        return "items", descend(value, here)
    if isinstance(value, float) and value.is_integer() and keyword in _COUNTS:
        return keyword, int(value)
    if keyword in ("enum", "required"):
        walk.count(len(value) if isinstance(value, list) else 1)
    if keyword == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        raise InvalidRequest(
            walk.place, f"{walk.place}: '$ref' must point into the schema itself at {path or 'the root'}"
        )
    return keyword, value
