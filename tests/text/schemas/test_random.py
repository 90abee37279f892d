"""Random schemas: the grammar takes nothing that the validator calls invalid, and nearly all that it calls valid."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from jaxserve.errors import InvalidRequest

KEYS = ["a", "b", "c", "ab"]
SCALARS = [None, True, False, 0, 1, 2, 3, -1, 1.5, "", "a", "b", "ab", "abc", "x1"]
PATTERNS = ["^a", "b$", "^[a-c]*$", "^(?!ab)", "^(?=a)[a-z]+$", "\\d"]
NAMES = [{"pattern": "^a"}, {"enum": ["a", "b"]}, {"maxLength": 1}, {"not": {"const": "c"}}, {"not": {"pattern": "b"}}]
TYPES = ["object", "array", "string", "number", "integer", ["string", "null"], ["object", "array"], "boolean"]
VALUES = 30


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if depth > 2 or kind < 0.45:
        return rng.choice(SCALARS)
    if kind < 0.7:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {key: value(rng, depth + 1) for key in KEYS if rng.random() < 0.5}


class Author:
    """Writes random schemas."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def schema(self) -> dict[str, Any]:
        rng = self.rng
        return {**self.part(0), "$defs": {"x": self.part(2), "y": self.part(1)}} if rng.random() < 0.5 else self.part(0)

    def part(self, depth: int) -> Any:
        rng = self.rng
        if depth > 3 or (depth and rng.random() < 0.05):
            return rng.choice([True, False, {"type": rng.choice(TYPES)}])
        written: dict[str, Any] = {"type": rng.choice(TYPES)} if rng.random() < 0.8 else {}
        for keyword in rng.choices(list(self.keywords(depth)), k=rng.randint(0, 3)):
            written |= self.keywords(depth)[keyword]()
        return written

    def keywords(self, depth: int) -> dict[str, Any]:
        rng = self.rng

        def part() -> Any:
            return self.part(depth + 1)

        def parts() -> list[Any]:
            return [part() for _ in range(rng.randint(1, 3))]

        def count(keyword: str) -> Any:
            return lambda: {keyword: rng.randint(0, 3)}

        return {
            "enum": lambda: {"enum": [value(rng, 1) for _ in range(rng.randint(1, 3))]},
            "const": lambda: {"const": value(rng, 1)},
            "properties": lambda: {"properties": {key: part() for key in rng.sample(KEYS, 2)}},
            "required": lambda: {"required": rng.sample(KEYS, rng.randint(1, 2))},
            "additionalProperties": lambda: {"additionalProperties": rng.choice([False, part()])},
            "patternProperties": lambda: {"patternProperties": {"^a": part(), rng.choice(["b$", "c"]): part()}},
            "items": lambda: {"items": part()},
            "prefixItems": lambda: {"prefixItems": [part(), part()]},
            "bounds": lambda: {rng.choice(["minimum", "exclusiveMinimum"]): rng.choice([0, 1, 1.5])},
            "pattern": lambda: {"pattern": rng.choice(PATTERNS)},
            "not": lambda: {"not": part()},
            "if": lambda: {"if": part(), "then": part(), "else": part()},
            "dependentRequired": lambda: {"dependentRequired": {rng.choice(KEYS): rng.sample(KEYS, 1)}},
            "dependentSchemas": lambda: {"dependentSchemas": {rng.choice(KEYS): part()}},
            "propertyNames": lambda: {"propertyNames": rng.choice(NAMES)},
            "contains": lambda: {"contains": part(), "maxContains": 2} if rng.random() < 0.3 else {"contains": part()},
            "uniqueItems": lambda: {"uniqueItems": True, "items": {"enum": ["a", 1, None][: rng.randint(1, 3)]}},
            "unevaluatedProperties": lambda: {"unevaluatedProperties": rng.choice([False, part()])},
            **{keyword: (lambda keyword=keyword: {keyword: parts()}) for keyword in ("anyOf", "allOf", "oneOf")},
            **{keyword: count(keyword) for keyword in ("minItems", "maxItems", "minLength", "maxProperties")},
        }


def compare(seed: int, schemas: int, grammar: Any) -> tuple[int, int, int]:
    """(schemas compiled, valid values, those that their grammar takes)."""
    author, compiled, valid, taken = Author(seed), 0, 0, 0
    for number in range(schemas):
        schema = author.schema()
        if "$defs" in schema and author.rng.random() < 0.7:
            schema["$ref"] = f"#/$defs/{author.rng.choice('xy')}"
        try:
            takes = grammar(schema, open_objects=number % 2 == 0)
        except InvalidRequest:
            continue
        compiled += 1
        validator = jsonschema.Draft202012Validator(schema)
        for _ in range(VALUES):
            candidate = value(author.rng)
            is_valid, takes_it = validator.is_valid(candidate), takes(candidate)
            assert is_valid or not takes_it, (json.dumps(schema), candidate)
            if number % 2 == 0:
                valid += is_valid
                taken += takes_it
    return compiled, valid, taken


def check(seed: int, schemas: int, grammar: Any) -> None:
    compiled, valid, taken = compare(seed, schemas, grammar)
    assert compiled > schemas * 0.4
    assert taken > valid * 0.85 > 0


@pytest.mark.parametrize("seed", range(3))
def test_random_schemas(seed: int, grammar: Any) -> None:
    check(seed, 40, grammar)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_many_random_schemas(seed: int, grammar: Any) -> None:
    check(seed, 500, grammar)
