"""Answers cut anywhere: what a stream says is what the whole text says, no half call, no marker.

And markers of the reasoning that the answer speaks of: they are its text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxserve.text.formats import FORMATS, BoundFormat, Tool
from jaxserve.text.reading.parser import Content, ParsedMessage, StreamingParser, parse_message

CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "formats" / "cases.jsonl").read_text("utf-8").splitlines()
]
PLAIN = {
    name: [case for case in CASES if case["format"] == name and case["tools"] and case["calls"]] for name in FORMATS
}
THINKING = [name for name, each in FORMATS.items() if each.thinking is not None]
WORDS = "Text of an answer, then more."


def streamed(bound: BoundFormat, pieces: Sequence[str], tools: Any, *, opened: bool, cut: bool) -> ParsedMessage:
    parser, message = StreamingParser(bound, tools=tools, reasoning_open=opened), ParsedMessage()
    for piece in pieces:
        for event in parser.push(piece):
            message.add(event)
    for event in parser.flush(cut=cut):
        message.add(event)
    return message


def shown(message: ParsedMessage) -> Any:
    return message.content, message.reasoning, [(call.name, call.arguments) for call in message.calls]


def markers_of(name: str) -> list[str]:
    calls = FORMATS[name].calls
    return [marker for marker in {*calls.opens, *calls.markers, *calls.strays} if len(marker) > 1]


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_answer(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    the, tools = bound(name, tokens=tokens), Tool.parse(weather_tools)
    assert PLAIN[name]
    for case in PLAIN[name]:
        text, opened = case["text"], case["reasoning_open"]
        whole = parse_message(the, text, tools=tools, reasoning_open=opened)
        for at in range(tokens, len(text) + 1, 2):  # both kinds together cut everywhere
            for cut in (True, False):
                part = streamed(the, [text[:at]], tools, opened=opened, cut=cut)
                assert shown(streamed(the, text[:at], tools, opened=opened, cut=cut)) == shown(part)
                assert [call.arguments for call in part.calls] == [
                    call.arguments for call in whole.calls[: len(part.calls)]
                ], text[:at]
            part = streamed(the, [text[:at]], tools, opened=opened, cut=True)
            assert whole.content.startswith(part.content.rstrip()), (text[:at], part.content)
            assert whole.reasoning.startswith(part.reasoning), (text[:at], part.reasoning)
            leaked = [marker for marker in markers_of(name) if marker in part.content.removeprefix(case["content"])]
            assert not leaked, text[:at]


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_forced_call_that_is_cut_shows_nothing(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    the, tools = bound(name, tokens=tokens), Tool.parse(weather_tools)
    tried = 0
    for case in PLAIN[name]:
        message = parse_message(the, case["text"], tools=tools, reasoning_open=case["reasoning_open"])
        if message.content or message.reasoning:
            continue
        tried += 1
        for at in range(len(case["text"])):
            part = streamed(the, case["text"][:at], tools, opened=case["reasoning_open"], cut=True)
            assert not part.content.strip(), case["text"][:at]
    assert tried


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_plain_answer_loses_nothing_by_tools(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    """Texts that only look like the beginning of a call, streamed and cut at any place."""
    the, tools = bound(name, tokens=tokens), Tool.parse(weather_tools)
    for text in (WORDS, "a < b and [1, 2] or {", 'In JSON: {"name": "Bob", "age": 3} or {"type": "object"}.', "[x](y)"):
        assert parse_message(the, text, tools=tools, reasoning_open=False).content == text
        for at in range(len(text)):
            content = streamed(the, text[:at], tools, opened=False, cut=True).content
            assert text.startswith(content)
            assert len(content) >= at - len('{"type": "object"')


@pytest.mark.parametrize("tools", [True, False], ids=["tools", "no tools"])
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", THINKING)
def test_markers_of_the_reasoning_in_the_answer_are_text(
    name: str, tokens: bool, tools: bool, bound: Any, weather_tools: Any
) -> None:
    the, thinking = bound(name, tokens=tokens), FORMATS[name].thinking
    assert thinking is not None
    given = Tool.parse(weather_tools) if tools else None
    for said in (
        f"Put it in `{thinking.open}` tags.",
        f"`{thinking.close}` ends it.",
        f"{WORDS} {thinking.open}x{thinking.close}.",
    ):
        for opened, before in (
            (False, ""),
            (False, f"{thinking.open}why{thinking.close}"),
            (True, f"why{thinking.close}"),
        ):
            for pieces in ([before + said], before + said):
                message = streamed(the, pieces, given, opened=opened, cut=False)
                assert (message.content, message.reasoning) == (said, "why" if before else "")


@pytest.mark.parametrize("name", [name for name in THINKING if FORMATS[name].thinking.ended_by_calls])  # type: ignore[union-attr]
def test_a_close_marker_after_a_call_that_ended_the_reasoning_is_none(
    name: str, bound: Any, weather_tools: Any
) -> None:
    the, thinking = bound(name), FORMATS[name].thinking
    assert thinking is not None
    case: Mapping[str, Any] = next(case for case in PLAIN[name] if not case["content"] and not case["reasoning"])
    text = f"{thinking.open}why{case['text']}{thinking.close}Then `{thinking.close}`."
    message = parse_message(the, text, tools=Tool.parse(weather_tools), reasoning_open=False)
    assert message.reasoning == "why"
    assert message.content == f"Then `{thinking.close}`."
    assert len(message.calls) == len(case["calls"])


def test_content_streams_while_a_bare_object_is_read(bound: Any, weather_tools: Any) -> None:
    parser = StreamingParser(bound("llama3"), tools=Tool.parse(weather_tools), reasoning_open=False)
    assert parser.push('{"name": "Bo') == []
    assert parser.push('b", "age": ') == [Content('{"name": "Bob", "age": ')]
