"""Tools whose schemas can't be enforced take any values, the others keep their schemas, strict ones refuse."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import walks

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats import Tool
from jaxserve.text.grammar import trial
from jaxserve.text.grammar.request_grammar import CompiledGrammar, GrammarCompiler
from jaxserve.text.grammar.wish import OutputWish

IMPOSSIBLE: dict[str, Any] = {
    "look-around": {"type": "string", "pattern": "(?=a)b"},
    "backreference": {"type": "string", "pattern": "(a)\\1"},
    "word boundary": {"type": "string", "pattern": "\\bfoo\\b"},
    "no regular expression": {"type": "string", "pattern": "("},
    "overlapping oneOf": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "a reference elsewhere": {"$ref": "https://example.com/x.json"},
    "a reference to nothing": {"$ref": "#/$defs/none"},
    "an anchor": {"$ref": "#here"},
    "enum null": {"enum": None},
    "unknown type": {"type": "any"},
    "a huge bound": {"type": "integer", "minimum": 10**30},
    "not": {"type": "integer", "not": {"multipleOf": 3}},
    "uniqueItems": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    "contains": {"type": "array", "contains": {"type": "integer"}, "minContains": 3, "maxContains": 8},
    "a value of the wrong kind": {"type": "string", "maxLength": "5"},
    "no schema": 5,
}
IGNORED: dict[str, Any] = {
    "unknown format": {"type": "string", "format": "weird"},
    "annotations": {"type": "string", "readOnly": True, "contentEncoding": "base64", "$comment": "c", "x-order": 1},
}
GOOD = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMATS = ("generic", "qwen3", "qwen3_coder", "gpt_oss", "llama3")
MODES = {"auto": {}, "required": {"forced": True}}


def tool(name: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def holding(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema, "y": {"type": "string"}}, "required": ["x"]}


@pytest.fixture(scope="module")
def compile_for(bound: Any) -> Any:
    compilers: dict[str, GrammarCompiler] = {}

    def compile_(name: str, tools: list[Any], **wish: Any) -> CompiledGrammar:
        if name not in compilers:
            the = bound(name)
            compilers[name] = GrammarCompiler(the, vocab_size=the.tokenizer.vocab_size)
        grammar = compilers[name].compile(OutputWish(tools=Tool.parse(tools), **wish))
        assert grammar is not None
        return grammar

    return compile_


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_a_schema_that_can_not_be_enforced_is_left_to_the_model(kind: str, mode: str, compile_for: Any) -> None:
    tools = [tool("good", GOOD), tool("bad", holding(IMPOSSIBLE[kind]))]
    grammar = compile_for("generic", tools, **MODES[mode])
    assert {name for name, _ in grammar.relaxed} == {"bad"}
    assert all(what for _, what in grammar.relaxed)
    assert "integer" in grammar.source, "the other tool keeps its schema"


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", ["look-around", "unknown type", "uniqueItems"])
def test_every_format_can_still_call_it(format_: str, kind: str, compile_for: Any, bound: Any) -> None:
    grammar = compile_for(format_, [tool("bad", holding(IMPOSSIBLE[kind]))], forced=True, parallel=False)
    tokenizer, stops, ends = bound(format_).tokenizer, grammar.rules.stop_ids, set()
    for seed in range(12):
        ends.add(walks.walk(grammar, tokenizer, random.Random(seed), stops=stops, limit=400)[1])
    assert "stop" in ends


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_a_strict_tool_is_refused_by_name(kind: str, mode: str, compile_for: Any) -> None:
    tools = [tool("good", GOOD), tool("bad", holding(IMPOSSIBLE[kind]), strict=True)]
    with pytest.raises(InvalidRequest, match="'bad' is strict") as caught:
        compile_for("generic", tools, **MODES[mode])
    assert caught.value.field == "tools.1.function.parameters"
    assert "panic" not in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("kind", IGNORED)
def test_what_says_nothing_about_values_is_ignored(kind: str, compile_for: Any) -> None:
    grammar = compile_for("generic", [tool("f", holding(IGNORED[kind]), strict=True)], forced=True)
    assert grammar.relaxed == ()


def test_many_tools_of_which_some_are_impossible(compile_for: Any) -> None:
    tools = [tool(f"t{i}", holding(IMPOSSIBLE["look-around"]) if i % 7 == 0 else GOOD) for i in range(60)]
    grammar = compile_for("qwen3", tools, forced=True)
    assert [name for name, _ in grammar.relaxed] == [f"t{i}" for i in range(0, 60, 7)]


BOMB = {"type": "string", "allOf": [{"pattern": f"a.{{{i}}}b"} for i in range(60)]}


@pytest.fixture
def impatient(bound: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[GrammarCompiler]:
    """A compiler whose workers may compute for 0.3 seconds."""
    monkeypatch.setattr(trial, "LIMITS", replace(trial.LIMITS, cpu_seconds=0.3))
    the = bound("generic")
    compiler = GrammarCompiler(the, vocab_size=the.tokenizer.vocab_size)
    yield compiler
    compiler.trials.close()


def test_a_tool_that_costs_too_much_is_left_to_the_model(impatient: GrammarCompiler) -> None:
    bad = [tool(f"bad{i}", holding(BOMB)) for i in range(5)]
    grammar = impatient.compile(OutputWish(tools=Tool.parse([tool("good", GOOD), *bad]), forced=True))
    assert grammar is not None
    assert [name for name, _ in grammar.relaxed] == [f"bad{i}" for i in range(5)]
    assert "integer" in grammar.source, "the other tool keeps its schema"


def test_a_strict_tool_that_costs_too_much_is_refused_by_name(impatient: GrammarCompiler) -> None:
    tools = Tool.parse([tool("good", GOOD), tool("bad", holding(BOMB), strict=True)])
    with pytest.raises(InvalidRequest, match="'bad' is strict: it takes"):
        impatient.compile(OutputWish(tools=tools, forced=True))
