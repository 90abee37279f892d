"""Objects of schemas: closed where they name their keys, compact, and without corners that no text leads out of."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
import walks

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats import Tool
from jaxserve.text.grammar.request_grammar import CompiledGrammar, GrammarCompiler
from jaxserve.text.grammar.wish import OutputWish

A, B = {"a": {"type": "integer"}}, {"b": {"type": "integer"}}


@pytest.fixture(scope="module")
def compiler(bound: Any) -> GrammarCompiler:
    generic = bound("generic", tokens=False)
    return GrammarCompiler(generic, vocab_size=generic.tokenizer.vocab_size)


def of(compiler: GrammarCompiler, schema: Any) -> CompiledGrammar:
    grammar = compiler.compile(OutputWish({"type": "json_schema", "json_schema": schema}))
    assert grammar is not None
    return grammar


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    matcher = grammar.matcher()
    return all(matcher.consume(byte) for byte in text.encode()) and matcher.is_accepting()


def obj(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more}


CLOSED = {
    "properties": (obj(properties=A), ['{"a":1}', "{}"], ['{"c":1}', '{"a":1,"c":1}']),
    "no properties at all": (obj(properties={}), ["{}"], ['{"c":1}']),
    "nested": (obj(properties={"x": obj(properties=A)}), ['{"x":{"a":1}}'], ['{"x":{"c":1}}']),
    "in an array": ({"type": "array", "items": obj(properties=A)}, ['[{"a":1},{}]'], ['[{"c":1}]']),
    "definitions": ({"$ref": "#/$defs/x", "$defs": {"x": obj(properties=A)}}, ['{"a":1}'], ['{"c":1}']),
    "options": ({"anyOf": [obj(properties=A, required=["a"]), obj(properties=B)]}, ['{"a":1}'], ['{"a":1,"b":1}']),
    "a reference in allOf": (
        {"allOf": [{"$ref": "#/$defs/x"}], "description": "d", "$defs": {"x": obj(properties=A)}},
        ['{"a":1}'],
        ['{"c":1}'],
    ),
    "inherited": (
        {"allOf": [{"$ref": "#/$defs/x"}, obj(properties=B)], "$defs": {"x": obj(properties=A, required=["a"])}},
        ['{"a":1}', '{"a":1,"b":2}'],
        ['{"a":1,"c":1}', '{"b":1}'],
    ),
    "one of several required": (
        obj(properties={**A, **B}, anyOf=[{"required": ["a"]}, {"required": ["b"]}]),
        ['{"a":1}', '{"b":1}', '{"a":1,"b":1}'],
        ["{}", '{"a":1,"c":1}'],
    ),
}
OPEN = {
    "additional allowed": obj(properties=A, additionalProperties=True),
    "additional described": obj(properties=A, additionalProperties={"type": "integer"}),
    "patterns": obj(properties=A, patternProperties={"^c": {}}),
    "no properties": obj(),
    "open base": {"allOf": [obj(properties=A, additionalProperties=True), obj(properties=B)]},
}


@pytest.mark.parametrize("name", CLOSED)
def test_objects_that_name_their_keys_are_closed(name: str, compiler: GrammarCompiler) -> None:
    schema, good, bad = CLOSED[name]
    grammar = of(compiler, schema)
    for text in good:
        assert accepts(grammar, text), text
        jsonschema.validate(json.loads(text), schema)
    for text in bad:
        assert not accepts(grammar, text), text


@pytest.mark.parametrize("name", OPEN)
def test_objects_that_say_otherwise_are_open(name: str, compiler: GrammarCompiler) -> None:
    assert accepts(of(compiler, OPEN[name]), '{"a":1,"c":1}')


def test_arguments_of_tools_are_closed_too(bound: Any) -> None:
    the = bound("generic", tokens=False)
    grammars = GrammarCompiler(the, vocab_size=the.tokenizer.vocab_size)
    tools = Tool.parse([{"type": "function", "function": {"name": "f", "parameters": obj(properties=A)}}])
    grammar = grammars.compile(OutputWish(tools=tools, forced=True, parallel=False))
    assert grammar is not None
    rng = random.Random(0)
    assert {walks.walk(grammar, the.tokenizer, rng, limit=200)[1] for _ in range(12)} == {"stop"}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (obj(properties=A), '{"a":1}', ['{"a": 1}', '{ "a":1}', '{"a":1 }', '{\n"a":1}', ' {"a":1}', '{"a":1}\n']),
        ({"type": "array"}, "[1,2]", ["[1, 2]", "[ ]", "[1,\n2]"]),
        ({"type": "string"}, '"a  b\\n"', [' "a"']),
    ],
)
def test_json_is_compact_unless_the_schema_asks(
    schema: Any, good: str, bad: list[str], compiler: GrammarCompiler
) -> None:
    assert accepts(of(compiler, schema), good)
    assert not any(accepts(of(compiler, schema), text) for text in bad)
    roomy = of(compiler, {**schema, "x-guidance": {"whitespace_flexible": True}})
    assert accepts(roomy, json.dumps(json.loads(good), indent=2))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "x-guidance": {"item_separator": ";"}},
        {"type": "object", "x-guidance": {"whitespace_flexible": True, "key_separator": "="}},
        {"type": "object", "x-guidance": True},
        {"type": "object", "properties": {"a": {"type": "array", "x-guidance": {"whitespace_flexible": True}}}},
    ],
)
def test_a_layout_that_would_have_no_effect_is_refused(schema: Any, compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest, match="x-guidance"):
        of(compiler, schema)


DEAD_ENDS = {
    "a pattern for a named key": obj(
        properties={"score": {"type": "integer"}},
        required=["score"],
        patternProperties={"^score$": {"type": "integer"}},
        additionalProperties=False,
    ),
    "a pattern for several": obj(
        properties={**A, **B}, patternProperties={"^(a|b)$": {"minimum": 5}}, additionalProperties=False
    ),
    "a class of characters": obj(properties={**A, **B}, patternProperties={"^[ab]$": {}}, additionalProperties=False),
    "repeated": obj(properties={"aa": {}, "aaa": {}}, patternProperties={"^a{2,3}$": {}}, additionalProperties=False),
    "one pattern of two": obj(properties=A, patternProperties={"^a$": {}, "^x": {}}, additionalProperties=False),
    "a forbidden pattern": obj(properties={**A, **B}, patternProperties={"^a": False}, additionalProperties=False),
    "in an array": {
        "type": "array",
        "items": obj(properties=A, patternProperties={"^a$": {}}, additionalProperties=False),
    },
}


@pytest.mark.parametrize("name", DEAD_ENDS)
def test_no_text_runs_into_a_corner(name: str, compiler: GrammarCompiler) -> None:
    grammar, ended = of(compiler, DEAD_ENDS[name]), 0
    for seed in range(30):
        tokens, end = walks.walk(grammar, _Bytes(), random.Random(seed), vocab_size=grammar.rules.vocab_size, limit=120)
        if end == "stop":
            ended += 1
            jsonschema.validate(json.loads(bytes(tokens)), DEAD_ENDS[name])
    assert ended > 5


class _Bytes:
    vocab_size = 257

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        obj(properties={"next": {"$ref": "#"}}, required=["next"]),
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"anyOf": [{"$ref": "#"}, obj(properties={"x": {"$ref": "#"}}, required=["x"])]},
    ],
)
def test_schemas_whose_values_never_end_are_refused(schema: Any, compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest, match="for ever"):
        of(compiler, schema)


@pytest.mark.parametrize(
    "schema",
    [
        obj(properties={"next": {"$ref": "#"}}),
        {"type": "array", "items": {"$ref": "#"}},
        {"anyOf": [{"type": "null"}, obj(properties={"x": {"$ref": "#"}}, required=["x"])]},
    ],
)
def test_schemas_that_may_end_are_taken(schema: Any, compiler: GrammarCompiler) -> None:
    of(compiler, schema)
