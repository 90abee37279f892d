"""Schemas as requests give them: bounded, checked, with old drafts' keywords in today's, references resolved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxserve.errors import InvalidRequest
from jaxserve.text.schemas.keywords import COUNTS, LISTS, MAPS, PLAIN, SINGLES, is_names
from jaxserve.text.schemas.references import Nowhere, References

MAX_DEPTH = 64
MAX_NODES = 20_000
MAX_CHARS = 1_000_000
MAX_PROPERTIES = 2_000
"""Of one object: each makes every mask of the grammar dearer."""
LAYOUT_KEYWORD = "x-guidance"
"""The grammar engine's own keyword: at the root of an answer's schema it chooses the layout, elsewhere it can't."""

_OLD = ("draft-03", "draft-04", "draft-06", "draft-07")
"""Drafts in which whatever stands beside a `$ref` is ignored."""
_WAYS = ("$ref", "$dynamicRef", "$recursiveRef")

Schema = dict[str, Any] | bool


@dataclass
class Document:
    """A schema that has been read."""

    root: Schema = True
    definitions: dict[str, Schema] = field(default_factory=dict)
    """What references lead to: `{"$ref": name}`."""
    relaxed: list[str] = field(default_factory=list)
    """Keywords left out, by path."""

    def resolve(self, schema: Mapping[str, Any]) -> Schema:
        """What a reference leads to."""
        return self.definitions[schema["$ref"]]


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


def read_schema(given: Any, place: str, *, relax: bool = False) -> Document:
    """Reads a schema.

    Args:
        given: as the request has it.
        place: the request's field, for messages.
        relax: leave out what can't be read as JSON Schema where that is possible.

    Raises:
        InvalidRequest: it is no schema, is too large or deep, or refers to something else.
    """
    return _Reader(given, place, relax=relax).document()


class _Reader:
    def __init__(self, given: Any, place: str, *, relax: bool) -> None:
        dialect = given.get("$schema") if isinstance(given, Mapping) else None
        dialect = dialect if isinstance(dialect, str) else ""
        self._old = any(draft in dialect for draft in _OLD)
        self._references = References(given, draft4="draft-04" in dialect or "draft-03" in dialect)
        self._given = given
        self._place = place
        self._relax = relax
        self._nodes = 0
        self._names: dict[int, str] = {}
        self._waiting: list[tuple[str, Any, str]] = []
        self._document = Document()

    def document(self) -> Document:
        document = self._document
        document.root = self._schema(self._given, self._references.base, "", 0)
        while self._waiting:
            name, node, base = self._waiting.pop()
            document.definitions[name] = self._schema(node, base, f"/{name}", 0)
        document.definitions = {name: self._end(name) for name in document.definitions}
        return document

    def _end(self, name: str) -> Schema:
        """The definition at the end of references that are nothing else."""
        seen, found = {name}, self._document.definitions[name]
        while isinstance(found, dict) and set(found) == {"$ref"}:
            if found["$ref"] in seen:
                raise self._error(
                    "not supported: every value of it would go on for ever: a '$ref' leads back to itself"
                )
            seen.add(found["$ref"])
            found = self._document.definitions[found["$ref"]]
        return found

    def _error(self, message: str) -> InvalidRequest:
        return InvalidRequest(self._place, f"{self._place}: {message}")

    def _count(self, parts: int) -> None:
        self._nodes += parts
        if self._nodes > MAX_NODES:
            raise self._error(f"the schema has more than {MAX_NODES} parts")

    def _schema(self, given: Any, base: str, path: str, depth: int) -> Schema:
        self._count(1)
        if depth > MAX_DEPTH:
            raise self._error(f"the schema is nested deeper than {MAX_DEPTH} levels")
        if isinstance(given, bool):
            return given
        if not isinstance(given, Mapping):
            raise self._error(f"not a schema at {path or 'the root'}")
        base = self._references.within(given, base)
        if self._old and isinstance(given.get("$ref"), str):
            return {"$ref": self._reference("$ref", given["$ref"], base, path)}
        read: dict[str, Any] = {}
        for keyword, value in _translated(given).items():
            self._keyword(read, keyword, value, base, path, depth)
        return read

    def _keyword(self, read: dict[str, Any], keyword: str, value: Any, base: str, path: str, depth: int) -> None:
        here = f"{path}/{keyword}"
        if keyword in MAPS:
            self._check(isinstance(value, Mapping), keyword, path)
            if len(value) > MAX_PROPERTIES:
                raise self._error(f"more than {MAX_PROPERTIES} {keyword!r} at {path or 'the root'}")
            read[keyword] = {
                name: self._schema(part, base, f"{here}/{name}", depth + 1) for name, part in value.items()
            }
        elif keyword in LISTS:
            self._check(isinstance(value, list) and bool(value or keyword == "prefixItems"), keyword, path)
            read[keyword] = [self._schema(part, base, f"{here}/{index}", depth + 1) for index, part in enumerate(value)]
        elif keyword in SINGLES:
            read[keyword] = self._schema(value, base, here, depth + 1)
        elif keyword in _WAYS:
            read["$ref"] = self._reference(keyword, value, base, path)
        elif keyword in PLAIN:
            self._check(PLAIN[keyword](value), keyword, path)
            self._count(_size(value))
            read[keyword] = int(value) if keyword in COUNTS else value
        elif keyword == LAYOUT_KEYWORD:
            self._refuse(keyword, path, "only {'whitespace_flexible': true or false}, at the root of response_format")

    def _check(self, good: bool, keyword: str, path: str) -> None:
        if not good:
            raise self._error(f"{keyword!r} has a value of the wrong kind at {path or 'the root'}")

    def _refuse(self, keyword: str, path: str, why: str) -> None:
        if not self._relax:
            raise self._error(f"{why} ({keyword!r} at {path or 'the root'})")
        self._document.relaxed.append(f"{path}/{keyword}")

    def _reference(self, keyword: str, value: Any, base: str, path: str) -> str:
        """The name of what a reference leads to."""
        self._check(isinstance(value, str), keyword, path)
        try:
            resolve = self._references.dynamic if keyword == "$dynamicRef" else self._references.resolve
            node, base = resolve(value, base)
        except Nowhere as nowhere:
            raise self._error(f"{nowhere} at {path or 'the root'}") from None
        except ValueError:
            raise self._error(f"{keyword!r} is not a reference at {path or 'the root'}") from None
        name = self._names.get(id(node))
        if name is None:
            name = self._names[id(node)] = f"d{len(self._names)}"
            self._waiting.append((name, node, base))
        return name


def _translated(given: Mapping[str, Any]) -> dict[str, Any]:
    """A schema in the keywords of draft 2020-12."""
    schema = dict(given)
    if isinstance(schema.get("items"), list):  # what is called `prefixItems` today
        schema = {("prefixItems" if keyword == "items" else keyword): value for keyword, value in schema.items()}
        if "additionalItems" in schema:
            schema["items"] = schema["additionalItems"]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    if isinstance(schema.get("dependencies"), Mapping):
        _split_dependencies(schema)
    return schema


def _split_dependencies(schema: dict[str, Any]) -> None:
    given = schema.pop("dependencies")
    names = {key: [needs] if isinstance(needs, str) else needs for key, needs in given.items()}
    required = {key: needs for key, needs in names.items() if is_names(needs)}
    if required:
        schema["dependentRequired"] = {**schema.get("dependentRequired", {}), **required}
    if len(required) < len(names):
        others = {key: needs for key, needs in names.items() if key not in required}
        schema["dependentSchemas"] = {**schema.get("dependentSchemas", {}), **others}


def _size(value: Any) -> int:
    """Parts of a plain value."""
    size, stack = 0, [value]
    while stack:
        part = stack.pop()
        size += 1
        if isinstance(part, list):
            stack += part
        elif isinstance(part, Mapping):
            stack += part.values()
        if size > MAX_NODES:
            break
    return size
