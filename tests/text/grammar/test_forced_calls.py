"""Calls under a grammar: whatever is drawn, they are valid, in every format."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import walks

from jaxserve.errors import InvalidRequest
from jaxserve.text import load_tokenizer
from jaxserve.text.formats import FORMATS, BoundFormat, Tool, bind
from jaxserve.text.formats.calls_tagged import TaggedCalls
from jaxserve.text.grammar.request_grammar import GrammarCompiler
from jaxserve.text.grammar.wish import OutputWish
from jaxserve.text.reading.parser import ParsedMessage, parse_message

STRICT = Tool(
    "strict",
    {
        "type": "object",
        "properties": {
            "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"},
            "day": {"type": "string", "format": "date"},
            "short": {"type": "string", "minLength": 1, "maxLength": 5},
            "kind": {"$ref": "#/$defs/kind"},
            "where": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"x": {"type": "number"}}}]},
        },
        "required": ["code", "day", "short", "kind", "where"],
        "additionalProperties": False,
        "$defs": {"kind": {"type": "string", "enum": ["a b", "<c>"]}},
    },
    strict=True,
)


def check(message: ParsedMessage, tools: Sequence[Tool]) -> None:
    """Every call is one of a given tool, with arguments that its schema allows."""
    for call in message.calls:
        tool = next(tool for tool in tools if tool.name == call.name)
        jsonschema.validate(json.loads(call.arguments), tool.parameters)


def compiler(bound: BoundFormat) -> Any:
    return GrammarCompiler(bound, vocab_size=bound.tokenizer.vocab_size)


def endings(bound: BoundFormat) -> list[str]:
    """What ends an unquoted value."""
    calls = bound.format.calls
    return ["\n" * calls.trim_value + calls.value_close] if isinstance(calls, TaggedCalls) else []


def drawn(bound: BoundFormat, tools: Sequence[Tool], count: int, *, parallel: bool = True) -> list[ParsedMessage]:
    """Messages of random walks that were forced to call and came to their end."""
    grammar = compiler(bound).compile(OutputWish(tools=tuple(tools), forced=True, parallel=parallel))
    stops = sorted({*bound.stop_ids, *bound.tokenizer.eos_ids})
    messages = []
    for seed in range(count):
        rng = random.Random(seed)
        tokens, end = walks.walk(grammar, bound.tokenizer, rng, stops=stops, endings=endings(bound))
        if end == "stop":
            text = bound.tokenizer.decode(tokens, skip_special_tokens=False)
            messages.append(parse_message(bound, text, tools=tools, reasoning_open=False))
    return messages


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", FORMATS)
def test_required_gives_valid_calls(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    tools = Tool.parse(weather_tools)
    messages = drawn(bound(name, tokens=tokens), tools, 4)
    assert messages
    for message in messages:
        assert message.calls
        assert not message.content.strip()
        check(message, tools)


@pytest.mark.parametrize("name", FORMATS)
def test_named_gives_that_call(name: str, bound: Any, weather_tools: Any) -> None:
    tools = (*Tool.parse(weather_tools), STRICT)
    for chosen in ("ping", "strict"):
        messages = drawn(bound(name), [tool for tool in tools if tool.name == chosen], 4, parallel=False)
        assert messages
        for message in messages:
            assert [call.name for call in message.calls] == [chosen]
            check(message, tools)


@pytest.mark.parametrize("name", FORMATS)
def test_parallel_calls_can_be_forbidden(name: str, bound: Any, weather_tools: Any) -> None:
    tools = Tool.parse(weather_tools)[1:]
    counts = {
        parallel: {len(message.calls) for message in drawn(bound(name), tools, 16, parallel=parallel)}
        for parallel in (True, False)
    }
    assert counts[False] == {1}
    assert FORMATS[name].calls.frame or max(counts[True]) > 1


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", FORMATS)
def test_auto_constrains_from_the_trigger_on(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    the, tools = bound(name, tokens=tokens), Tool.parse(weather_tools)
    grammar = compiler(the).compile(OutputWish(tools=tools))
    assert grammar is not None
    for trigger in the.format.calls.triggers(tools):
        before = (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" if the.format.calls.frame else "Let me look. <"
        )
        free = the.tokenizer.encode(before, add_special_tokens=False)
        opening = the.tokenizer.encode(trigger, add_special_tokens=False)
        matcher = grammar.matcher()
        everything = set(range(the.tokenizer.vocab_size)) - set(unannounced(the))
        for token in (*free, *opening):
            assert not matcher.constrains
            assert set(walks.allowed(matcher, the.tokenizer.vocab_size)) == everything
            assert matcher.consume(token)
        assert matcher.constrains == (trigger not in BARE), trigger
        if not matcher.constrains:
            continue
        stops = sorted({*the.stop_ids, *the.tokenizer.eos_ids})
        tokens_, end = walks.walk(matcher, the.tokenizer, random.Random(3), stops=stops, endings=endings(the))
        text = the.tokenizer.decode([*free, *opening, *tokens_], skip_special_tokens=False)
        message = parse_message(the, text, tools=tools, reasoning_open=False)
        assert message.calls
        if end == "stop":
            check(message, tools)


def unannounced(bound: BoundFormat) -> list[int]:
    """Tokens that begin a call of which the grammar would not learn."""
    calls = bound.format.calls
    triggers = calls.triggers([Tool("f")])
    return [bound.marker_ids[text] for text in calls.opens if text not in triggers and text in bound.marker_ids]


def test_a_call_can_not_begin_where_the_grammar_does_not_see_it(bound: Any, weather_tools: Any) -> None:
    assert [len(unannounced(bound(name))) for name in ("kimi_k2", "deepseek_v31", "qwen3")] == [1, 1, 0]


BARE = ('{"type"', '{"function"', '{ "name"', "{\n")
"""Ways to begin a bare object that the grammar doesn't write itself: the call is read, but not constrained."""


def test_a_trigger_that_no_call_follows_is_answer(bound: Any, weather_tools: Any) -> None:
    the = bound("llama3")
    matcher = compiler(the).compile(OutputWish(tools=Tool.parse(weather_tools))).matcher()
    free = 'In C: int main() {\n return 0; } and in JSON {"type": 1}. '
    for token in the.tokenizer.encode(free, add_special_tokens=False):
        assert matcher.consume(token)
        assert not matcher.constrains
    opening = the.tokenizer.encode('{"name"', add_special_tokens=False)
    assert all(matcher.consume(token) for token in opening)
    assert matcher.constrains
    assert matcher.rollback(1)
    assert not matcher.constrains
    assert matcher.consume(opening[-1])
    assert [chr(token) for token in walks.allowed(matcher, the.tokenizer.vocab_size)] == [":"]


def test_auto_without_a_trigger_never_constrains(bound: Any, weather_tools: Any) -> None:
    the = bound("hermes")
    matcher = compiler(the).compile(OutputWish(tools=Tool.parse(weather_tools))).matcher()
    for token in the.tokenizer.encode("An answer about <tool_cal and <b>.", add_special_tokens=False):
        assert matcher.consume(token)
        assert not matcher.constrains
    assert matcher.is_accepting()
    assert not matcher.is_stopped()


def unsupported(strict: bool) -> Tool:
    items = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    return Tool("f", {"type": "object", "properties": {"ids": items}}, strict=strict)


def test_unsupported_keywords_of_strict_tools_are_refused(bound: Any) -> None:
    the = compiler(bound("hermes"))
    refused: list[Callable[[], object]] = [
        lambda: the.compile(OutputWish(tools=(unsupported(True),))),
        lambda: the.compile(OutputWish(tools=(unsupported(True),), forced=True)),
    ]
    for attempt in refused:
        with pytest.raises(InvalidRequest, match="'uniqueItems'") as caught:
            attempt()
        assert caught.value.field == "tools.parameters"


def test_unsupported_keywords_of_tools_that_are_not_strict_are_reported(bound: Any) -> None:
    grammar = compiler(bound("hermes")).compile(OutputWish(tools=(unsupported(False),)))
    assert grammar.relaxed == (("f", "/properties/ids/uniqueItems"),)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", ["qwen3_coder", "glm45", "minimax_m2", "deepseek_v32"])
def test_text_can_not_hold_what_closes_it(name: str, tokens: bool, bound: Any) -> None:
    the = bound(name, tokens=tokens)
    tool = Tool("f", {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]})
    grammar = compiler(the).compile(OutputWish(tools=(tool,), forced=True, parallel=False))
    calls = the.format.calls
    head = calls.section_open + calls.before_call + calls.after_section_open + calls.call_open + "f" + calls.name_close
    attribute = f"{calls.string_attribute}true" if calls.string_attribute else ""
    head += calls.after_name + calls.key_open + "x" + attribute + calls.key_close + calls.after_key + calls.value_open
    head += "\n" * calls.trim_value
    for text, good in (("</b> & </", True), (f"a{calls.value_close}b", False)):
        matcher = grammar.matcher()
        for token in the.tokenizer.encode(head, add_special_tokens=False):
            assert matcher.consume(token), matcher.error
        # Spelt out in ordinary tokens, as a model may.
        assert all(matcher.consume(byte) for byte in text.encode()) == good


def test_text_of_markers_in_a_schema_is_text(bound: Any) -> None:
    """A schema may hold what is a token of the model: it is then written in other tokens."""
    tool = Tool("f", {"type": "object", "properties": {"x": {"const": "</tool_call>"}}, "required": ["x"]})
    for message in drawn(bound("hermes"), [tool], 3, parallel=False):
        check(message, [tool])


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        pytest.param("qwen", "qwen3", marks=pytest.mark.slow),
        pytest.param("deepseek_v3", "deepseek_v31", marks=pytest.mark.slow),
        ("llama3", "llama3"),
        ("llama2", "mistral"),
        pytest.param("gpt_oss", "gpt_oss", marks=pytest.mark.slow),
    ],
)
def test_required_with_published_tokenizers(directory: str, name: str, shared_dir: Path, weather_tools: Any) -> None:
    tokenizer = load_tokenizer(shared_dir / "real/tokenizers" / directory)
    the, tools = bind(FORMATS[name], tokenizer, None), Tool.parse(weather_tools)
    size = tokenizer.vocab_size + 100
    grammars: Any = GrammarCompiler(the, vocab_size=size)
    stops = sorted({*the.stop_ids, *tokenizer.eos_ids})
    ended = 0
    for seed in range(4):
        grammar = grammars.compile(OutputWish(tools=tools, forced=True, parallel=False))
        tokens, end = walks.walk(grammar, tokenizer, random.Random(seed), stops=stops, vocab_size=size, limit=120)
        if end == "stop":
            ended += 1
            text = tokenizer.decode(tokens, skip_special_tokens=False)
            message = parse_message(the, text, tools=tools, reasoning_open=False)
            assert len(message.calls) == 1
            check(message, tools)
    assert ended
