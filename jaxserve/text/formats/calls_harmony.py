"""The harmony format of GPT-OSS: messages in channels, with recipients.

Source: OpenAI's harmony response format. Not declarative: the whole output is a sequence of messages
`<|channel|>CHANNEL [to=RECIPIENT] [<|constrain|>TYPE]<|message|>TEXT<|end|>`, in which the header's order varies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxserve.text.formats.lark import Lark
from jaxserve.text.formats.syntax import CallSyntax, Reading
from jaxserve.text.formats.tools import Tool
from jaxserve.text.reading.json_reader import read_value
from jaxserve.text.reading.reader import Markers, Steps, drop

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CALL, RETURN, CONSTRAIN = "<|call|>", "<|return|>", "<|constrain|>"
_HEADER_ENDS = Markers((MESSAGE, END, CALL, RETURN))
_BODY_ENDS = Markers((END, CALL, RETURN, START, CHANNEL))
_STRAYS = (MESSAGE, CONSTRAIN)
_BODY = Markers((END, CALL, RETURN, START, CHANNEL, *_STRAYS))
_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


@dataclass(frozen=True)
class HarmonyCalls(CallSyntax):
    """Calls as messages to `functions.NAME`."""

    @property
    def opens(self) -> tuple[str, ...]:
        """See `CallSyntax`. The whole output is read by `read_frame`."""
        return ()

    @property
    def strays(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return (START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN)

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return (" to=functions.",)

    def parse(self, opened: str, reading: Reading) -> Steps[None]:
        """See `CallSyntax`. Never called: harmony has no free text."""
        yield from ()

    def grammar(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """See `CallSyntax`. A call ends the turn, so there is one at most."""
        calls = []
        for tool in tools:
            before = f"{lark.text(f'{CHANNEL}commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}')}"
            after = f"{lark.text(f' to=functions.{tool.name}{CHANNEL}commentary {CONSTRAIN}json{MESSAGE}')}"
            calls.append(f"({before} | {after}) {lark.arguments(tool)}")
        return lark.choice(calls)

    @property
    def frame(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return self.markers

    def read_frame(self, reading: Reading) -> Steps[None]:
        """See `CallSyntax`: messages until the end."""
        return _read_messages(reading)

    def before_answer(self, lark: Lark) -> str:
        """See `CallSyntax`: the analysis channel."""
        text = lark.text(f"{CHANNEL}analysis{MESSAGE}")
        return lark.rule(f"({text} {lark.free()} {lark.text(f'{END}{START}assistant')})?")

    def framed(self, answer: str, lark: Lark) -> str:
        """See `CallSyntax`: the final channel."""
        return lark.rule(f"{lark.text(f'{CHANNEL}final{MESSAGE}')} {answer}")

    @property
    def replays_trigger(self) -> bool:
        """See `CallSyntax`."""
        return False

    def after_trigger(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """See `CallSyntax`: the name, the rest of the header in either order, arguments."""
        header = lark.choice(
            [
                lark.text(f"{CHANNEL}commentary {CONSTRAIN}json{MESSAGE}"),
                lark.text(f"{CHANNEL}commentary json{MESSAGE}"),
                lark.text(f" {CONSTRAIN}json{MESSAGE}"),
                lark.text(MESSAGE),
            ]
        )
        return lark.choice([f"{lark.text(tool.name)} {header} {lark.arguments(tool)}" for tool in tools])


def _read_messages(reading: Reading) -> Steps[None]:
    reader = reading.reader
    first = True
    while (yield from reader.peek()):
        if first and not (yield from _has_header(reading)):
            yield from _body(reading, reading.out.content)
        else:
            header, marker = yield from reader.text_until(_HEADER_ENDS)
            if marker == MESSAGE:
                yield from _message(header, reading)
        first = False


def _has_header(reading: Reading) -> Steps[bool]:
    """Whether the output begins with a header; without one it continues an answer."""
    reading.reader.record()
    yield from reading.reader.skip()
    spaces = reading.reader.recorded()
    found = yield from reading.reader.at_marker(Markers((CHANNEL, START, MESSAGE, "to=")))
    reading.reader.give_back(spaces)
    return found


def _message(header: str, reading: Reading) -> Steps[None]:
    out = reading.out
    channels, recipients = _CHANNEL.findall(header), _RECIPIENT.findall(header)
    recipient = recipients[-1] if recipients else ""
    if recipient.startswith("functions.") and reading.tools is not None:
        yield from _call(recipient.removeprefix("functions."), reading)
        return
    emit: Callable[[str], None] = out.content
    if recipient not in ("", "assistant", "user"):
        emit = drop
    elif channels and channels[-1] == "analysis":
        emit = out.reasoning
    marker = yield from _body(reading, emit)
    if emit == out.reasoning and marker is not None:
        out.end_reasoning()
    if marker == CHANNEL:
        reading.reader.give_back(marker)


def _body(reading: Reading, emit: Callable[[str], None]) -> Steps[str | None]:
    """Emits a message's text; returns the marker that ended it."""
    while (marker := (yield from reading.reader.until(_BODY, emit))) in _STRAYS:
        pass
    return marker


def _call(name: str, reading: Reading) -> Steps[None]:
    reader, out = reading.reader, reading.out
    out.start_call(name)
    complete = bool(char := (yield from reader.skip()))
    if char == "{":
        complete = yield from read_value(reader, out.arguments, _BODY_ENDS)
    else:
        out.arguments("{}")
    if complete or not reader.ended:
        out.end_call()
    yield from reader.until(_BODY_ENDS, drop)
