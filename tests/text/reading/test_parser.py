"""The streaming parser: the same message however the text is split, no markers in it, in linear time."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from jaxserve.text.formats import FORMATS, BoundFormat, Tool
from jaxserve.text.reading.parser import (
    CallArguments,
    CallEnd,
    CallStart,
    Content,
    Event,
    ParsedMessage,
    Reasoning,
    StreamingParser,
)

WORDS = [
    "Hi",
    " ",
    "\n",
    "\n\n",
    "{",
    "}",
    '"',
    '{"name": "ping"',
    ', "arguments": {',
    "[ping(",
    ")]",
    "ping",
    "get_weather",
]
WORDS += [
    " to=functions.ping",
    "analysis",
    "final",
    "<",
    "</",
    "<|",
    "city",
    ":0",
    "json",
    "é",
    "42",
    "[",
    "]",
    "<think",
    "\\",
]


def events_of(
    bound: BoundFormat, pieces: Iterable[str], tools: Sequence[Tool] | None = (), *, reasoning_open: bool = False
) -> list[Event]:
    parser = StreamingParser(bound, tools=tools, reasoning_open=reasoning_open)
    return [*(event for piece in pieces for event in parser.push(piece)), *parser.flush()]


def message_of(events: Iterable[Event]) -> ParsedMessage:
    message = ParsedMessage()
    for event in events:
        message.add(event)
    for call in message.calls:
        call.id = call.id if call.id.startswith("functions.") else ""
    return message


def soup(name: str, rng: random.Random) -> str:
    """Markers and words of a format in no order."""
    the = FORMATS[name]
    thinking = (the.thinking.open, the.thinking.close) if the.thinking else ()
    markers = [*the.calls.markers, *the.calls.opens, *the.stops, *thinking, "<eos>"]
    return "".join(rng.choice(rng.choice((markers, WORDS))) for _ in range(rng.randrange(1, 30)))


def pieces(text: str, rng: random.Random) -> list[str]:
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(6)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("name", FORMATS)
def test_any_text_in_any_pieces(name: str, bound: Any, weather_tools: Any) -> None:
    rng = random.Random(name)
    tools = Tool.parse(weather_tools)
    for number in range(120):
        the = bound(name, tokens=number % 2 == 0)
        text, given, opened = soup(name, rng), rng.choice((tools, (), None)), rng.random() < 0.3
        whole = message_of(events_of(the, [text], given, reasoning_open=opened))
        for split in (list(text), pieces(text, rng)):
            assert message_of(events_of(the, split, given, reasoning_open=opened)) == whole, text
        if number % 2 == 0 and given is not None:
            shown = whole.content + whole.reasoning
            thinking = the.format.thinking
            spoken_of = (thinking.open, thinking.close) if thinking else ()
            markers = {*the.marker_ids, "<eos>"} - {*spoken_of}
            assert not [marker for marker in markers if marker in shown], (text, shown)


def test_events_come_in_order_and_early(bound: Any) -> None:
    the = bound("qwen3")
    parser = StreamingParser(the, tools=(), reasoning_open=False)
    assert parser.push("<think>\nHm") == [Reasoning("Hm")]
    assert parser.push(".\n</think>\n\nYes") == [Reasoning("."), Content("Yes")]
    assert parser.push(" <") == [Content(" ")]
    assert parser.push("b>\n") == [Content("<b>")]
    assert parser.push('<tool_call>\n{"name": "f", "arguments": {"x": "a') == []
    started, arguments, ended = parser.push('b"}}')
    assert isinstance(started, CallStart)
    assert (started.name, arguments, ended) == ("f", CallArguments(0, '{"x": "ab"}'), CallEnd(0))
    assert parser.push("\n</tool_call>") == []
    assert parser.flush() == []


def test_ids_have_the_family_form(bound: Any) -> None:
    text = {
        "hermes": '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "mistral": '[TOOL_CALLS][{"name": "f", "arguments": {}}]',
        "kimi_k2": "<|tool_call_begin|>functions.f:7<|tool_call_argument_begin|>{}<|tool_call_end|>",
    }
    ids = {
        name: message.id
        for name in text
        for message in events_of(bound(name), [text[name]])
        if isinstance(message, CallStart)
    }
    assert ids["hermes"].startswith("call_")
    assert len(ids["mistral"]) == 9
    assert ids["mistral"].isalnum()
    assert ids["kimi_k2"] == "functions.f:7"
    twice = message_of(events_of(bound("kimi_k2"), [text["kimi_k2"] * 2]))
    assert [call.name for call in twice.calls] == ["f", "f"]
    starts = [event.id for event in events_of(bound("kimi_k2"), [text["kimi_k2"] * 2]) if isinstance(event, CallStart)]
    assert len(set(starts)) == 2


def test_special_tokens_that_mean_nothing_are_left_out(bound: Any) -> None:
    events = events_of(bound("hermes"), ["a<|im_end|>b<eos>c</tool_call>"])
    assert message_of(events).content == "abc"


LONG = {
    "answer": "word <b> and more\n" * 6000,
    "JSON text": '<tool_call>{"name": "f", "arguments": {"x": "' + "a b " * 25_000 + '"}}</tool_call>',
    "JSON structure": '<tool_call>{"name": "f", "arguments": {"x": [' + "[1], " * 20_000 + "1]}}</tool_call>",
    "almost markers": "<tool_cal" * 11_000,
    "blanks": "\n" * 100_000,
}


@pytest.mark.parametrize("name", LONG)
def test_time_is_linear(name: str, bound: Any) -> None:
    for step in (4, 100_000):
        text = LONG[name]
        started = time.process_time()
        message = message_of(events_of(bound("hermes"), [text[i : i + step] for i in range(0, len(text), step)]))
        assert time.process_time() - started < 5
        assert message.calls or message.content == text
        assert all(json.loads(call.arguments) for call in message.calls)
