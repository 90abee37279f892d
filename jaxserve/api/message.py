"""The text of a chat answer, as it arrives, to the parts of a message: content, reasoning, tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from jaxserve.api.lower import Parsing
from jaxserve.api.schema.responses import DeltaToolCall, ToolCallFunction
from jaxserve.text.reading.parser import CallArguments, CallStart, Content, Event, Reasoning, StreamingParser


@dataclass
class Part:
    """What some text adds to a message."""

    content: str = ""
    reasoning: str = ""
    calls: list[DeltaToolCall] = field(default_factory=list)
    """At most one entry for each call."""

    @property
    def empty(self) -> bool:
        """Whether it adds nothing."""
        return not (self.content or self.reasoning or self.calls)


class MessageReader:
    """Reads the text of one choice."""

    def __init__(self, parsing: Parsing) -> None:
        self._parser = StreamingParser(parsing.format, tools=parsing.tools, reasoning_open=parsing.reasoning_open)
        self._legacy = parsing.legacy
        self._called = False

    def read(self, text: str, *, ended: bool, cut: bool) -> Part:
        """What more text adds; `ended` with the last of it, `cut` where the model did not end it itself."""
        events = self._parser.push(text)
        if ended:
            events = [*events, *self._parser.flush(cut=cut)]
        self._called = self._called or any(isinstance(event, CallStart) for event in events)
        return _sum(events)

    def finish_reason(self, reason: str | None) -> str | None:
        """The reason that the client gets."""
        if reason == "stop" and self._called:
            return "function_call" if self._legacy else "tool_calls"
        return reason


def _sum(events: Iterable[Event]) -> Part:
    part = Part()
    calls: dict[int, DeltaToolCall] = {}
    arguments: dict[int, str] = {}
    for event in events:
        if isinstance(event, Content):
            part.content += event.text
        elif isinstance(event, Reasoning):
            part.reasoning += event.text
        elif isinstance(event, CallStart):
            function: ToolCallFunction = {"name": event.name}
            calls[event.index] = {"index": event.index, "id": event.id, "type": "function", "function": function}
            arguments[event.index] = ""
        elif isinstance(event, CallArguments):
            calls.setdefault(event.index, {"index": event.index, "function": {}})
            arguments[event.index] = arguments.get(event.index, "") + event.text
    for index, text in arguments.items():
        cast(ToolCallFunction, calls[index]["function"])["arguments"] = text
    part.calls = list(calls.values())
    return part
