"""The model's text to a message, while it arrives: answer, reasoning and tool calls, by the model's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxserve.text.formats.bound_format import BoundFormat
from jaxserve.text.formats.spec import Thinking
from jaxserve.text.formats.syntax import CallSyntax, Reading
from jaxserve.text.formats.tools import Tool
from jaxserve.text.reading.events import (
    CallArguments,
    CallEnd,
    CallStart,
    Content,
    Emitter,
    Event,
    Reasoning,
    random_id,
)
from jaxserve.text.reading.reader import Markers, Reader, Steps

__all__ = [
    "CallArguments",
    "CallEnd",
    "CallStart",
    "Content",
    "Event",
    "ParsedCall",
    "ParsedMessage",
    "Reasoning",
    "StreamingParser",
    "parse_message",
]


class StreamingParser:
    """Parses the output of one choice.

    However the text is split over `push`es, the message is the same. Markers and special tokens are never part of it,
    but for markers of the reasoning after its end: the answer may speak of them.

    Args:
        bound: the model's format.
        tools: the request's tools; None = calls are not looked for, and text that looks like one is answer.
        reasoning_open: the prompt ended inside the reasoning (`BoundFormat.prompt_opens_reasoning`).
    """

    def __init__(self, bound: BoundFormat, *, tools: Sequence[Tool] | None, reasoning_open: bool) -> None:
        self._bound = bound
        self._tools = tools
        self._reader = Reader()
        self._clean = Reader()
        thinking = bound.format.thinking
        self._out = Emitter(
            thinking.trim if thinking else "",
            lambda: random_id(bound.format.call_id_prefix, bound.format.call_id_letters),
        )
        self._unclosed = False
        """A call has ended the reasoning; its close marker may still come, once."""
        self._steps = self._run(reasoning_open)
        self._running = True
        self._advance()

    def push(self, text: str) -> list[Event]:
        """What more text adds. The engine must not leave special tokens out of it."""
        self._clean.feed(text)
        self._strip()
        self._advance()
        return self._out.take()

    def flush(self, *, cut: bool = False) -> list[Event]:
        """What the end of the text adds. Call it once.

        Args:
            cut: the text did not end by itself: what may be the beginning of a marker or of a call is left out.
        """
        if not cut:
            self._clean.ended = True
            self._strip()
            self._reader.ended = True
            self._advance()
        self._out.finish()
        return self._out.take()

    def _strip(self) -> None:
        """Moves text on to the parser, without the special tokens that mean nothing to it."""
        dropped, clean = self._bound.specials[self._tools is not None], self._clean
        while True:
            text = clean.rest
            at, marker = dropped.find(text, 0, ended=clean.ended)
            self._reader.feed(clean.take(at))
            if marker is None:
                return
            clean.take(len(marker))

    def _advance(self) -> None:
        if self._running and next(self._steps, _DONE) is _DONE:
            self._running = False

    def _run(self, reasoning_open: bool) -> Steps[None]:
        reading = Reading(self._reader, self._out, self._tools)
        framed = self._calls.read_frame(reading)
        yield from framed if framed is not None else self._text(reading, reasoning_open)

    def _text(self, reading: Reading, reasoning_open: bool) -> Steps[None]:
        yield from self._reasoning_first(reasoning_open)
        yield from self._answer(reading)

    def _reasoning_first(self, reasoning_open: bool) -> Steps[None]:
        """Reads the reasoning. It comes at the beginning or not at all: later, its markers are text of the answer."""
        thinking = self._bound.format.thinking
        if thinking is None:
            return
        self._reader.record()
        yield from self._reader.skip()
        spaces = self._reader.recorded()
        if (yield from self._reader.accept(thinking.open)) or reasoning_open:
            yield from self._reasoning(thinking)
        elif (yield from self._reader.accept(thinking.close)):
            self._out.end_reasoning()
        else:
            self._reader.give_back(spaces)

    def _reasoning(self, thinking: Thinking) -> Steps[None]:
        enders = self._calls.opens if thinking.ended_by_calls and self._tools is not None else ()
        enders = tuple(opening for opening in enders if len(opening.strip()) > 1)
        markers = Markers((thinking.close, *enders, *self._strays))
        while (marker := (yield from self._reader.until(markers, self._out.reasoning))) is not None:
            if marker == thinking.close or marker in enders:
                break
        if marker is None:
            return
        self._out.end_reasoning()
        if marker in enders:
            self._unclosed = True
            self._reader.give_back(marker)

    @property
    def _strays(self) -> tuple[str, ...]:
        """Markers that mean nothing where they are not expected."""
        if self._tools is None:
            return ()
        thinking = self._bound.format.thinking
        spelled = (thinking.open, thinking.close) if thinking is not None else ()
        return (*self._calls.strays, *(text for text in self._bound.marker_ids if text not in spelled))

    @property
    def _calls(self) -> CallSyntax:
        return self._bound.format.calls

    def _answer(self, reading: Reading) -> Steps[None]:
        """Answer and calls until the end."""
        opens = self._calls.opens if self._tools is not None else ()
        thinking = self._bound.format.thinking
        late_close = (thinking.close,) if thinking is not None and self._unclosed else ()
        markers = Markers((*opens, *self._strays, *late_close))
        while (marker := (yield from self._reader.until(markers, self._out.content))) is not None:
            if marker in opens:
                yield from self._calls.parse(marker, reading)
            elif marker in late_close:
                markers = Markers((*opens, *self._strays))


@dataclass
class ParsedCall:
    """A tool call."""

    id: str
    name: str
    arguments: str = ""
    """JSON text."""


@dataclass
class ParsedMessage:
    """What the events of one choice add up to."""

    content: str = ""
    reasoning: str = ""
    calls: list[ParsedCall] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Adds one event."""
        if isinstance(event, Content):
            self.content += event.text
        elif isinstance(event, Reasoning):
            self.reasoning += event.text
        elif isinstance(event, CallStart):
            self.calls.append(ParsedCall(event.id, event.name))
        elif isinstance(event, CallArguments):
            self.calls[event.index].arguments += event.text


def parse_message(
    bound: BoundFormat, text: str, *, tools: Sequence[Tool] | None, reasoning_open: bool, cut: bool = False
) -> ParsedMessage:
    """The message of a whole output; `cut`: it did not end by itself."""
    parser = StreamingParser(bound, tools=tools, reasoning_open=reasoning_open)
    message = ParsedMessage()
    for event in [*parser.push(text), *parser.flush(cut=cut)]:
        message.add(event)
    return message


_DONE = object()
