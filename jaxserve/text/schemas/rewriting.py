"""Schemas in the keywords that the grammar engine has.

What must not be, and what only decides (`if`), is open whatever the rest is: a value that breaks a rule breaks it with
further keys as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxserve.text.schemas import arrays, logic, objects
from jaxserve.text.schemas.closing import about_one_value, is_compound, named_keys
from jaxserve.text.schemas.disjoint import Comparison
from jaxserve.text.schemas.keywords import TYPES
from jaxserve.text.schemas.negation import ANYTHING, Speaker, context_of, negate
from jaxserve.text.schemas.node import CannotSay, Context, Node, Rule, Way, any_of
from jaxserve.text.schemas.reading import Document, Schema
from jaxserve.text.schemas.regular import NotRegular
from jaxserve.text.schemas.strings import ALIASES, ENGINE_FORMATS

MAX_WRITTEN = 40_000
"""Schemas that rewriting may make of one."""

_SUFFIX: Mapping[Way, str] = {"closed": "", "joint": "+", "open": "*", "no": "-"}
_KEPT = frozenset(
    [
        "type",
        "const",
        "enum",
        "required",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
    ]
)
_RULES: Mapping[str, Rule] = {**arrays.RULES, **logic.RULES, **objects.RULES}


class TooLarge(Exception):
    """The rewritten schema would be."""


class Rewriter:
    """Rewrites one document (`Says`).

    Args:
        document: as read.
        refuse: called with a keyword and the path of its schema, for a keyword that can't be said; it raises, or the
            keyword is left out.
        open_objects: close nothing.
    """

    def __init__(self, document: Document, refuse: Callable[[str, str], None], *, open_objects: bool = False) -> None:
        self.document = document
        self.comparison = Comparison(document)
        self._refuse = refuse
        self._top: Way = "open" if open_objects else "closed"
        self._waiting: list[tuple[str, Schema, Way]] = []
        self._begun: dict[Any, str] = {}
        self._recursive: dict[str, bool] = {}
        self._written = 0

    def run(self) -> Schema:
        """The whole schema, with its definitions."""
        root = self._say(self.document.root, self._top, "")
        definitions: dict[str, Schema] = {}
        while self._waiting:
            key, schema, way = self._waiting.pop()
            definitions[key] = self._said_or_refused(schema, way, f"/{key}")
        root, definitions = without_impossible(root, definitions)
        if not definitions:
            return root
        return {**root, "$defs": definitions} if isinstance(root, dict) else root

    def inside(self, node: Node, schema: Schema, step: str, key: str | None = None) -> Schema:
        """See `Says`."""
        way: Way = "open" if node.way == "open" or key in node.shared else "closed"
        return self._say(schema, way, f"{node.path}/{step}")

    def part(self, node: Node, schema: Schema, step: str) -> Schema:
        """See `Says`."""
        way: Way = "joint" if node.way == "closed" and is_compound(node.given) else node.way
        shared = node.shared | frozenset(node.given.get("properties", ()))
        around = (*node.around, node.given, *_closed_to(node.names))
        if isinstance(schema, dict) and set(schema) == {"$ref"} and self._depends(schema["$ref"]):
            schema = self.document.resolve(schema)
        return self._say(schema, way, f"{node.path}/{step}", shared, around)

    def _depends(self, name: str) -> bool:
        """Whether a definition is said more simply where its surroundings are known."""
        found = self.document.definitions[name]
        return isinstance(found, dict) and bool({"oneOf", "not", "if"} & set(found)) and not self._recurs(name)

    def condition(self, node: Node, schema: Schema, step: str) -> Schema:
        """See `Says`."""
        return self._say(schema, "open", f"{node.path}/{step}")

    def opposite(self, node: Node, schema: Schema, own: Schema = True) -> Schema:
        """See `Says`."""
        while isinstance(schema, dict) and set(schema) == {"$ref"}:
            schema = self.document.resolve(schema)
        return self._no(schema, node.path, self.context(node, own))

    def context(self, node: Node, own: Schema) -> Context:
        """See `Says`."""
        schemas = (own, node.given, *node.around)
        parts = [part for schema in schemas for part in about_one_value(schema, self.document, conditions=False)]
        known = [context_of(part) for part in parts]
        closed = [context.keys for context in known if context.keys is not None]
        closed += [frozenset(node.names)] if node.names is not None else []
        return Context(
            frozenset(TYPES).intersection(*(self.comparison.types(part) for part in parts)),
            frozenset.intersection(*closed) if closed else None,
            frozenset().union(*(context.required for context in known)),
            {key: part for context in reversed(known) for key, part in context.properties.items()},
        )

    def _no(self, schema: Schema, path: str, context: Context) -> Schema:
        self._count()
        speak = Speaker(
            lambda schema: self._say(schema, "open", path),
            lambda schema, context: self._no(schema, path, context),
            lambda name: self._reference(name, "no"),
            self.comparison.disjoint,
        )
        return negate(schema, speak, context)

    def _count(self) -> None:
        self._written += 1
        if self._written > MAX_WRITTEN:
            raise TooLarge

    def _said_or_refused(self, schema: Schema, way: Way, path: str) -> Schema:
        try:
            return self._say(schema, way, path)
        except CannotSay as reason:
            self._refuse(str(reason), path)
            return False

    def _say(
        self, schema: Schema, way: Way, path: str, shared: frozenset[str] = frozenset(), around: tuple[Schema, ...] = ()
    ) -> Schema:
        self._count()
        if way == "no":
            return self._no(schema, path, ANYTHING)
        if isinstance(schema, bool):
            return schema
        try:
            variants = objects.evaluated_variants(schema, self.document)
        except CannotSay:
            self._refuse("unevaluatedProperties", path)
            variants = None
        if variants is not None:
            return any_of([self._say(variant, way, path, shared, around) for variant in variants])
        inlined = self._inlined(schema)
        if inlined is not None:
            return self._defined((id(schema), way, shared), f"m{len(self._begun)}", inlined, way)
        names = named_keys(schema, self.document) if way == "closed" else None
        return self._node(Node(schema, way, path, names, shared, around))

    def _node(self, node: Node) -> Schema:
        said: dict[str, Any] = {}
        further: list[Schema] = []
        for keyword, value in node.given.items():
            self._tried(node, keyword, lambda k=keyword, v=value: self._keyword(node, k, v, said), further)  # type: ignore[misc]
        if node.names is not None:
            objects.close(said, node.names)
        self._tried(node, "minProperties", lambda: objects.counted(said, node, self.document), further)
        return _together(said, further)

    def _tried(self, node: Node, keyword: str, rule: Callable[[], list[Schema]], further: list[Schema]) -> None:
        try:
            further += rule()
        except (CannotSay, NotRegular):
            self._refuse(keyword, node.path)

    def _keyword(self, node: Node, keyword: str, value: Any, said: dict[str, Any]) -> list[Schema]:
        """Says a keyword in place where the engine has it; returns what says it otherwise."""
        if keyword in _KEPT:
            said[keyword] = value
        elif keyword == "format" and ALIASES.get(value, value) in ENGINE_FORMATS:
            said[keyword] = ALIASES.get(value, value)
        elif keyword in ("properties", "patternProperties"):
            said[keyword] = {key: self.inside(node, part, f"{keyword}/{key}", key) for key, part in value.items()}
            if keyword == "patternProperties":
                said[keyword] = _apart(said[keyword])
        elif keyword in ("items", "additionalProperties"):
            said[keyword] = self.inside(node, value, keyword)
        elif keyword == "prefixItems":
            said[keyword] = [self.inside(node, part, f"{keyword}/{index}") for index, part in enumerate(value)]
        elif keyword in ("anyOf", "allOf"):
            said[keyword] = [self.part(node, option, f"{keyword}/{index}") for index, option in enumerate(value)]
        elif keyword == "$ref":
            return self._referred(node, value, said)
        elif keyword in _RULES:
            return _RULES[keyword](self, node, value)
        return []

    def _referred(self, node: Node, name: str, said: dict[str, Any]) -> list[Schema]:
        if len(node.given) > 1 and self._recurs(name):
            return [self._merged(node, name)]
        way: Way = "joint" if node.way == "closed" and is_compound(node.given) else node.way
        found = self._reference(name, way)
        if isinstance(found, bool):
            return [found]
        said["$ref"] = found["$ref"]
        return []

    def _reference(self, name: str, way: Way) -> Schema:
        found = self.document.definitions[name]
        if isinstance(found, bool):
            return found if way != "no" else not found
        return self._defined((name, way), name + _SUFFIX[way], found, way)

    def _recurs(self, name: str) -> bool:
        """Whether a definition leads back to itself."""
        if name not in self._recursive:
            seen, stack = set[str](), [name]
            while stack:
                found = referred(self.document.definitions[stack.pop()]) - seen
                seen |= found
                stack += found
            self._recursive[name] = name in seen
        return self._recursive[name]

    def _inlined(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        """A schema with several parts, without references among them that lead back to themselves; None if it has none.

        The engine merges such parts, and can't merge what it has not finished.
        """
        lists: dict[str, list[Schema]] = {k: schema[k] for k in ("allOf", "anyOf", "oneOf") if k in schema}
        if len(schema) < 2 and len(lists.get("allOf", ())) < 2:
            return None
        found = {keyword: [self._body(part) for part in parts] for keyword, parts in lists.items()}
        if all(a is b for keyword, parts in found.items() for a, b in zip(parts, lists[keyword], strict=True)):
            return None
        return {**schema, **found}

    def _body(self, part: Schema) -> Schema:
        if isinstance(part, dict) and set(part) == {"$ref"} and self._recurs(part["$ref"]):
            return self.document.resolve(part)
        return part

    def _merged(self, node: Node, name: str) -> Schema:
        """A definition of a reference and what stands beside it: the engine can't merge what it has not finished."""
        beside = {keyword: value for keyword, value in node.given.items() if keyword != "$ref"}
        both: Schema = {"allOf": [self.document.definitions[name], beside]}
        key = (id(node.given), node.way, node.shared)
        return self._defined(key, f"m{len(self._begun)}", both, node.way)

    def _defined(self, key: Any, name: str, schema: Schema, way: Way) -> Schema:
        if key not in self._begun:
            self._begun[key] = name
            self._waiting.append((name, schema, way))
        return {"$ref": f"#/$defs/{self._begun[key]}"}


def _closed_to(names: list[str] | None) -> list[Schema]:
    return [{"properties": dict.fromkeys(names, True), "additionalProperties": False}] if names is not None else []


def without_impossible(root: Schema, definitions: dict[str, Schema]) -> tuple[Schema, dict[str, Schema]]:
    """The same without references to definitions that nothing satisfies: the engine refuses those altogether."""
    while any(found is False for found in definitions.values()):
        nothing = {f"#/$defs/{name}" for name, found in definitions.items() if found is False}
        root = _without(root, nothing)
        definitions = {name: _without(found, nothing) for name, found in definitions.items() if found is not False}
    return root, definitions


def _without(schema: Any, nothing: set[str]) -> Any:
    if isinstance(schema, list):
        return [_without(part, nothing) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref") in nothing:
        return False
    said = {
        keyword: part if keyword in ("enum", "const") else _without(part, nothing) for keyword, part in schema.items()
    }
    return False if any(part is False for part in said.get("allOf", ())) else said


def referred(schema: Schema) -> set[str]:
    """The definitions that a schema refers to."""
    found: set[str] = set()
    stack: list[Any] = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack += part
        elif isinstance(part, dict):
            found |= {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            stack += [value for keyword, value in part.items() if keyword not in ("enum", "const", "required")]
    return found


def _apart(patterns: dict[str, Schema]) -> dict[str, Schema]:
    try:
        return objects.apart(patterns)
    except NotRegular:
        return patterns  # the engine may know better


def _together(said: dict[str, Any], further: list[Schema]) -> Schema:
    """A schema and others about the same value. Order matters: it is that of the keys in an object."""
    more = [schema for schema in further if schema is not True]
    if any(schema is False for schema in more):
        return False
    for schema in [*more]:
        if (
            isinstance(schema, dict)
            and len(schema) == 1
            and not set(schema) & set(said)
            and set(schema) <= {"pattern", "anyOf", "minItems"}
        ):
            said |= schema
            more.remove(schema)
    if more and "allOf" in said and [*said][-1] != "allOf":
        return {"allOf": [said, *more]}
    if more:
        said["allOf"] = [*said.get("allOf", ()), *more]
    return said or True
