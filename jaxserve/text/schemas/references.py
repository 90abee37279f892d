"""Where references lead: pointers, anchors and identifiers, within one schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

_DATA = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose values are no schemas, whatever they look like."""
Place = tuple[Any, str]
"""A schema, and the identifier that references in it are relative to."""


class Nowhere(Exception):
    """A reference that leads nowhere, or out of the schema; the message says which, as a sentence."""


class References:
    """The references of one schema.

    Args:
        root: the schema.
        draft4: identifiers are spelled `id`.
    """

    def __init__(self, root: Any, *, draft4: bool) -> None:
        self._root = root
        self._keyword = "id" if draft4 else "$id"
        self.base = self._based(root, "")
        self._found: dict[str, Any] | None = None
        self._dynamic: dict[str, list[Any]] = {}

    def within(self, schema: Mapping[str, Any], base: str) -> str:
        """What references in a schema are relative to, where its surroundings have this base."""
        return self.base if schema is self._root else self._based(schema, base)

    def resolve(self, reference: str, base: str) -> Place:
        """The schema that a reference leads to.

        Raises:
            Nowhere: there is none.
        """
        uri, fragment = urldefrag(base + reference if reference.startswith("#") else urljoin(base, reference))
        document = self._document(uri)
        if fragment == "" or fragment.startswith("/"):
            return self._pointed(document, unquote(fragment), uri)
        found = self._index().get(f"{uri}#{fragment}")
        if found is None:
            raise Nowhere(f"'$ref' points to nothing: '#{fragment[:60]}'")
        return found, uri

    def dynamic(self, reference: str, base: str) -> Place:
        """The schema that a `$dynamicRef` leads to, if it is the same from wherever one comes.

        Raises:
            Nowhere: see `resolve`, or several schemas have this anchor.
        """
        name = reference.partition("#")[2]
        self._index()
        if len(self._dynamic.get(name, ())) > 1:
            raise Nowhere("a '$dynamicRef' that depends on where one comes from is not supported")
        return self.resolve(reference, base)

    def _document(self, uri: str) -> Any:
        if uri in ("", self.base):
            return self._root
        found = self._index().get(uri)
        if found is None:
            raise Nowhere("'$ref' must point into the schema itself")
        return found

    def _pointed(self, found: Any, pointer: str, base: str) -> Place:
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isascii() and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping) and name in found:
                found = found[name]
            else:
                raise Nowhere(f"'$ref' points to nothing: '#{pointer[:60]}'")
            if isinstance(found, Mapping):
                base = self._based(found, base)
        return found, base

    def _based(self, schema: Any, base: str) -> str:
        given = schema.get(self._keyword) if isinstance(schema, Mapping) else None
        return urldefrag(urljoin(base, given))[0] if isinstance(given, str) and not given.startswith("#") else base

    def _index(self) -> dict[str, Any]:
        if self._found is None:
            self._found = {}
            for node, base in self._nodes():
                self._enter(node, base)
        return self._found

    def _enter(self, node: Mapping[str, Any], base: str) -> None:
        assert self._found is not None
        given = node.get(self._keyword)
        if isinstance(given, str):
            self._found.setdefault(base + given if given.startswith("#") else base, node)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(node.get(keyword), str):
                self._found.setdefault(f"{base}#{node[keyword]}", node)
        if isinstance(node.get("$dynamicAnchor"), str):
            self._dynamic.setdefault(node["$dynamicAnchor"], []).append(node)

    def _nodes(self) -> Iterator[tuple[Mapping[str, Any], str]]:
        stack = [(self._root, "")]
        while stack:
            node, base = stack.pop()
            if isinstance(node, list):
                stack += [(part, base) for part in node]
            elif isinstance(node, Mapping):
                base = self._based(node, base)
                yield node, base
                stack += [(part, base) for keyword, part in node.items() if keyword not in _DATA]
