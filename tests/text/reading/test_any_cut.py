"""A streamed answer is the whole one, wherever its text is cut and whatever else is read meanwhile."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxserve.text.formats import FORMATS, BoundFormat, Tool
from jaxserve.text.reading.parser import ParsedMessage, StreamingParser, parse_message

CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "formats" / "cases.jsonl").read_text("utf-8").splitlines()
]
STREAMS = 64
CUTS = 3_000
"""Of each format, with its markers as tokens and as text: together 114,000."""


def pieces(text: str, rng: random.Random) -> list[str]:
    """A text cut at random places: few, or nearly everywhere."""
    share = rng.choice([0.02, 0.1, 0.3, 0.6, 0.95])
    cuts = [at for at in range(1, len(text)) if rng.random() < share] or [rng.randrange(len(text) + 1)]
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def shown(message: ParsedMessage) -> Any:
    return message.content, message.reasoning, [(call.name, call.arguments) for call in message.calls]


class Stream:
    """One answer that arrives in pieces."""

    def __init__(self, bound: BoundFormat, case: Any, tools: Sequence[Tool] | None, rng: random.Random) -> None:
        self.expected = shown(parse_message(bound, case["text"], tools=tools, reasoning_open=case["reasoning_open"]))
        self.left = pieces(case["text"], rng)[::-1]
        self.cuts = len(self.left) - 1
        self.message = ParsedMessage()
        self._parser = StreamingParser(bound, tools=tools, reasoning_open=case["reasoning_open"])

    def step(self) -> None:
        """Reads the next piece."""
        for event in self._parser.push(self.left.pop()):
            self.message.add(event)
        for event in self._parser.flush(cut=False) if not self.left else ():
            self.message.add(event)


def streams(bound: BoundFormat, name: str, tools: Sequence[Tool], rng: random.Random) -> Iterator[Stream]:
    cases = [case for case in CASES if case["format"] == name and case["text"]]
    assert any(case["calls"] for case in cases)
    while True:
        case = rng.choice(cases)
        yield Stream(bound, case, tools if case["tools"] else None, rng)


def read(bound: BoundFormat, name: str, tools: Sequence[Tool], seed: int, cuts: int) -> None:
    """Reads 64 streams at once, each beside the others, until there were so many cuts."""
    rng, tried = random.Random(seed), 0
    source = streams(bound, name, tools, rng)
    running = [next(source) for _ in range(STREAMS)]
    while running:
        stream = rng.choice(running)
        stream.step()
        if not stream.left:
            assert shown(stream.message) == stream.expected
            tried += stream.cuts
            running.remove(stream)
            running += [next(source)] if tried < cuts else []
    assert tried >= cuts


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", FORMATS)
def test_any_cut(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    read(bound(name, tokens=tokens), name, Tool.parse(weather_tools), seed=0, cuts=CUTS)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_million_cuts(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    read(bound(name, tokens=tokens), name, Tool.parse(weather_tools), seed=1, cuts=9 * CUTS)
