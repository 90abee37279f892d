"""One schema that is being said, and what the rules of its keywords may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from jaxserve.text.schemas.disjoint import Comparison
from jaxserve.text.schemas.keywords import TYPES
from jaxserve.text.schemas.reading import Document, Schema

T = TypeVar("T")
Way = Literal["closed", "joint", "open", "no"]
"""How a schema is said. `closed`: objects take no further keys unless it says otherwise. `joint`: the same, but its
surroundings close the object itself. `open`: nothing is closed, as JSON Schema has it. `no`: its opposite."""


class CannotSay(Exception):
    """What a keyword asks for can't be said in the keywords of the grammar engine; the message says which keyword."""


@dataclass(frozen=True)
class Context:
    """What holds anyway, so that its opposite need not be said."""

    types: frozenset[str] = frozenset(TYPES)
    keys: frozenset[str] | None = None
    """The only keys that the value can have; None = any."""
    required: frozenset[str] = frozenset()
    properties: Mapping[str, Schema] = field(default_factory=dict)

    def of(self, key: str) -> Schema:
        """What is known of the value of a key."""
        return self.properties.get(key, True)


@dataclass(frozen=True)
class Node:
    """A schema that is being said, not as its opposite."""

    given: dict[str, Any]
    way: Way
    path: str
    names: list[str] | None
    """The only keys that its object takes, where it is closed; None = what it says itself."""
    shared: frozenset[str]
    """Keys whose values the schema around it describes too: they are not closed here."""
    around: tuple[Schema, ...] = ()
    """What the schemas around it say of the same value."""


class Says(Protocol):
    """What a rule may ask for."""

    document: Document
    comparison: Comparison

    def inside(self, node: Node, schema: Schema, step: str, key: str | None = None) -> Schema:
        """A schema in the node about a part of its value: an item, or the value of a key."""

    def part(self, node: Node, schema: Schema, step: str) -> Schema:
        """A schema in the node about the same value."""

    def condition(self, node: Node, schema: Schema, step: str) -> Schema:
        """The same, open: what only decides."""

    def context(self, node: Node, own: Schema) -> Context:
        """What holds of the values of `own`, a schema in the node about the same value, as far as it is easily told."""

    def opposite(self, node: Node, schema: Schema, own: Schema = True) -> Schema:
        """What a schema about the same value does not allow.

        Args:
            node: whatever it says holds anyway: its opposites need not be said.
            schema: must not hold.
            own: holds anyway as well.

        Raises:
            CannotSay: it can't be said.
        """


Rule = Callable[[Says, Node, Any], list[Schema]]
"""(what it may ask for, the node, the keyword's value) to schemas about the same value that say the keyword."""


def any_of(options: list[Schema]) -> Schema:
    """One of several schemas."""
    kept = [option for option in options if option is not False]
    if any(option is True for option in kept):
        return True
    return kept[0] if len(kept) == 1 else {"anyOf": kept} if kept else False


def all_of(parts: list[Schema]) -> Schema:
    """All of several schemas."""
    kept = [part for part in parts if part is not True]
    if any(part is False for part in kept):
        return False
    return kept[0] if len(kept) == 1 else {"allOf": kept} if kept else True


def types_but(*kinds: str) -> Schema:
    """Values of other types."""
    return {"type": [kind for kind in TYPES if kind not in kinds]}


def subsets(things: Iterable[T]) -> list[tuple[T, ...]]:
    """All selections of some things."""
    found: list[tuple[T, ...]] = [()]
    for thing in things:
        found += [(*chosen, thing) for chosen in found]
    return found
