"""Keywords about arrays that the grammar engine lacks: `contains`, `uniqueItems`, `unevaluatedItems`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations, permutations
from typing import Any

from jaxserve.text.schemas.closing import about_one_value
from jaxserve.text.schemas.disjoint import item_schema, same, values_of
from jaxserve.text.schemas.keywords import TYPES
from jaxserve.text.schemas.negation import MAX_POSITION
from jaxserve.text.schemas.node import CannotSay, Node, Rule, Says, any_of, types_but
from jaxserve.text.schemas.reading import Schema

MAX_ARRAYS = 1_100
"""Arrays that are listed where no item may come twice: all of 6 values in any order, or of 10 in one order."""
MAX_PLACES = 128
"""Ways to choose the places of the items that an array must contain."""


def _contains(says: Says, node: Node, value: Schema) -> list[Schema]:
    least, most = node.given.get("minContains", 1), node.given.get("maxContains")
    if most is None and value is True:
        return [{"minItems": least}] if least else []
    if least == 0 and most is None:
        return []
    room = int(min(node.given.get("maxItems", math.inf), max(MAX_POSITION, least)))
    part = says.inside(node, value, "contains")
    rest = says.opposite(Node({}, "open", node.path, None, frozenset()), value) if most is not None else True
    counts = range(least, (least if most is None else min(most, room)) + 1)
    if sum(math.comb(room, count) for count in counts) > MAX_PLACES:
        raise CannotSay("contains")
    places = [set(chosen) for count in counts for chosen in combinations(range(room), count)]
    return [any_of([types_but("array"), *(_placed(part, rest, chosen) for chosen in places)])]


def _placed(part: Schema, rest: Schema, places: set[int]) -> Schema:
    """Arrays with such items at these places, and others elsewhere."""
    last = max(places, default=-1)
    prefix = [part if index in places else rest for index in range(last + 1)]
    items = {} if rest is True else {"items": rest}
    return {"type": "array", "prefixItems": prefix, "minItems": last + 1, **items}


def _unique(says: Says, node: Node, value: bool) -> list[Schema]:
    most = node.given.get("maxItems", math.inf)
    if not value or most <= 1 or _all_apart(says, node):
        return []
    values = _listed(says, node.given.get("items", True)) if "prefixItems" not in node.given else None
    if values is None:
        raise CannotSay("uniqueItems")
    counts = range(node.given.get("minItems", 0), int(min(most, len(values))) + 1)
    for arranged, number in ((permutations, math.perm), (combinations, math.comb)):
        if sum(number(len(values), count) for count in counts) <= MAX_ARRAYS:
            arrays = [list(chosen) for count in counts for chosen in arranged(values, count)]
            return [any_of([types_but("array"), {"enum": arrays}])]
    raise CannotSay("uniqueItems")


def _all_apart(says: Says, node: Node) -> bool:
    """Whether the items can't be equal: each place has values of its own."""
    places = node.given.get("prefixItems", [])
    if not places or (node.given.get("items") is not False and node.given.get("maxItems", math.inf) > len(places)):
        return False
    return all(says.comparison.disjoint(a, b) for a, b in combinations(places, 2))


def _listed(says: Says, schema: Schema) -> list[Any] | None:
    """All values of a schema, if they are few and it says nothing else about them."""
    while isinstance(schema, Mapping) and set(schema) == {"$ref"}:
        schema = says.document.resolve(schema)
    if not isinstance(schema, Mapping) or not set(schema) <= {"type", "enum", "const"}:
        return None
    found: list[Any] = []
    for kind in says.comparison.types(schema) & set(TYPES):
        values = values_of(schema, kind)
        if values is None or schema.get("type") == "integer":
            return None
        found += [value for value in values if not any(same(value, other) for other in found)]
    order = schema.get("enum", [])
    return sorted(found, key=lambda value: next((i for i, other in enumerate(order) if same(value, other)), 0))


def _unevaluated(says: Says, node: Node, value: Schema) -> list[Schema]:
    """Items that no other keyword speaks of, where no keyword speaks of some on a condition."""
    if value is True:
        return []
    parts = list(about_one_value(node.given, says.document))
    if len(parts) > len(list(about_one_value(node.given, says.document, conditions=False))):
        raise CannotSay("unevaluatedItems")
    if any("contains" in part for part in parts):
        raise CannotSay("unevaluatedItems")
    if any("items" in part or part.get("unevaluatedItems", value) != value for part in parts):
        return []
    first = max(len(part.get("prefixItems", ())) for part in parts)
    return [{"prefixItems": [True] * first, "items": says.inside(node, value, "unevaluatedItems")}]


RULES: Mapping[str, Rule] = {"contains": _contains, "uniqueItems": _unique, "unevaluatedItems": _unevaluated}
__all__ = ["RULES", "item_schema"]
