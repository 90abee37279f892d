"""Which keys the objects of a schema may have beyond those that it names.

A schema with `properties` means these keys and no others, unless it says otherwise with `additionalProperties`,
`patternProperties` or `unevaluatedProperties`: the rule that Fireworks documents. Models that are free to invent keys
do so until they run out of tokens. A key that is required is named too, though nothing is said of its value: without it
the object could not be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxserve.text.schemas.reading import Document, Schema

_SAYS_OTHERWISE = ("additionalProperties", "patternProperties", "unevaluatedProperties")
_PARTS = ("allOf", "anyOf", "oneOf")
_CONDITIONS = ("if", "then", "else")


def about_one_value(node: Any, document: Document, *, conditions: bool = True) -> Iterator[dict[str, Any]]:
    """The node, and all schemas that speak about the same value: options and conditional ones too, if wanted."""
    seen: set[int] = set()
    stack = [node]
    while stack:
        part = stack.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        more: list[Schema] = [document.resolve(part)] if "$ref" in part else []
        for keyword in _PARTS if conditions else ("allOf",):
            more += part.get(keyword, ())
        if conditions:
            more += [part[keyword] for keyword in _CONDITIONS if keyword in part]
            more += part.get("dependentSchemas", {}).values()
        stack += reversed(more)


def is_compound(node: Mapping[str, Any]) -> bool:
    """Whether several schemas speak about its value at the same time, so that they are closed together."""
    parts = ("properties" in node) + ("$ref" in node) + len(node.get("allOf", ()))
    return parts + sum(keyword in node for keyword in ("anyOf", "oneOf", "if", "dependentSchemas")) > 1


def named_keys(node: Mapping[str, Any], document: Document) -> list[str] | None:
    """The only keys of a closed object, in order; None where the object is open.

    Args:
        node: whose parts, if it is compound, are closed with it.
        document: of the node.
    """
    parts = list(about_one_value(node, document)) if is_compound(node) else [node]
    if any(keyword in part for part in parts for keyword in _SAYS_OTHERWISE):
        return None
    if not any("properties" in part for part in parts):
        return None
    described = [name for part in parts for name in part.get("properties", ())]
    return list(dict.fromkeys([*described, *(name for part in parts for name in _required(part))]))


def _required(part: Mapping[str, Any]) -> Iterator[str]:
    """Names that a schema requires, some of them only beside others."""
    yield from part.get("required", ())
    for needs in part.get("dependentRequired", {}).values():
        yield from needs
