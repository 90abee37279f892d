"""Keywords written in others: the grammar accepts exactly what JSON Schema says is valid."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import jsonschema
import pytest

from jaxserve.text.grammar.request_grammar import GrammarCompiler
from jaxserve.text.grammar.wish import OutputWish

INTEGER = {"type": "integer"}
ABC = {"a": INTEGER, "b": INTEGER, "c": INTEGER}
OBJECTS = [{key: 1 for key, there in zip("abc", chosen, strict=True) if there} for chosen in product([0, 1], repeat=3)]
ARRAYS = [list(items) for count in range(4) for items in product(["x", "y", "z", "w"], repeat=count)]
CASES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "dependentRequired": (
        {"type": "object", "properties": ABC, "dependentRequired": {"a": ["b"], "b": ["c"]}},
        OBJECTS,
    ),
    "dependentRequired on nothing": ({"type": "object", "properties": ABC, "dependentRequired": {"a": []}}, OBJECTS),
    "dependentRequired beside required": (
        {"type": "object", "properties": ABC, "required": ["c"], "dependentRequired": {"c": ["a"]}},
        OBJECTS,
    ),
    "uniqueItems of an enum": (
        {"type": "array", "items": {"enum": ["x", "y", "z"]}, "uniqueItems": True, "minItems": 1},
        ARRAYS,
    ),
    "uniqueItems, at most two": (
        {"type": "array", "items": {"type": "string", "enum": ["x", "y", "z"]}, "uniqueItems": True, "maxItems": 2},
        ARRAYS,
    ),
    "uniqueItems of one": ({"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 1}, ARRAYS),
    "not required": ({"type": "object", "properties": ABC, "not": {"required": ["b"]}}, OBJECTS),
    "not of an enum": ({"enum": ["x", "y", "z"], "not": {"enum": ["y", "w"]}}, ["x", "y", "z", "w"]),
    "not of a constant": ({"enum": ["x", "y"], "not": {"const": "x"}}, ["x", "y", "z"]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_grammar_accepts_what_is_valid(name: str, bound: Any) -> None:
    schema, values = CASES[name]
    generic = bound("generic", tokens=False)
    grammars = GrammarCompiler(generic, vocab_size=generic.tokenizer.vocab_size)
    grammar = grammars.compile(OutputWish({"type": "json_schema", "json_schema": schema}))
    assert grammar is not None
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert {valid(value) for value in values} >= {True}
    for value in values:
        matcher = grammar.matcher()
        text = json.dumps(value, separators=(",", ":")).encode()
        assert (all(matcher.consume(byte) for byte in text) and matcher.is_accepting()) == valid(value), value
