"""What a parser says: events, and the emitter that keeps their order and their whitespace straight.

A call's events come together once the call is complete: what has been streamed can't be taken back, and half a call,
cut by `max_tokens` or a stop text, must not look like one.
"""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass

_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Content:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A tool call begins."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of a call's arguments, JSON text."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnd:
    """A call's arguments are complete."""

    index: int


Event = Content | Reasoning | CallStart | CallArguments | CallEnd


def random_id(prefix: str, length: int) -> str:
    """A call id: a prefix and so many letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHANUMERIC) for _ in range(length))


def _kind(event: Event) -> tuple[object, ...]:
    """Equal for neighbours that can be one event."""
    if isinstance(event, CallArguments):
        return (CallArguments, event.index)
    return (type(event),) if isinstance(event, Content | Reasoning) else (id(event),)


def _join(events: list[Event]) -> Event:
    first = events[0]
    if len(events) == 1 or isinstance(first, CallStart | CallEnd):
        return first
    text = "".join(event.text for event in events if isinstance(event, Content | Reasoning | CallArguments))
    return dataclasses.replace(first, text=text)


class Emitter:
    """Collects events. Layout belongs to none of them: line breaks before a call, blanks between calls.

    Args:
        trim: characters dropped at both ends of the reasoning and after it.
        new_id: makes the id of a call whose text has none.
    """

    def __init__(self, trim: str, new_id: Callable[[], str]) -> None:
        self._trim = trim
        self._new_id = new_id
        self._events: list[Event] = []
        self._held = ""
        """Whitespace that is part of the content only if more content follows."""
        self._said = False
        """Whether content that is not whitespace has been emitted since the last call."""
        self._after_reasoning = False
        self._held_reasoning = ""
        self._reasoned = False
        self._call: list[Event] = []
        """The call that is being read; nothing of it is said before its end."""
        self.calls = 0
        """Complete calls."""
        self._ids: set[str] = set()

    def take(self) -> list[Event]:
        """The events since the last time, neighbours of one kind joined."""
        events, self._events = self._events, []
        return [_join(list(group)) for _, group in itertools.groupby(events, key=_kind)]

    def content(self, text: str) -> None:
        """Adds to the answer."""
        if self._after_reasoning:
            text = text.lstrip(self._trim)
            if not text:
                return
            self._after_reasoning = False
        text = self._held + text
        if not self._said and (self.calls or not text.strip()):
            # Before the first word, and between and after calls, whitespace is layout if a call follows.
            stripped = text.lstrip()
            if not stripped:
                self._held = text
                return
            text = stripped if self.calls else text
        kept = text.rstrip("\n")
        self._held = text[len(kept) :]
        if kept:
            self._said = True
            self._events.append(Content(kept))

    def reasoning(self, text: str) -> None:
        """Adds to the reasoning."""
        text = self._held_reasoning + text
        if not self._reasoned:
            text = text.lstrip(self._trim)
        cut = len(text.rstrip(self._trim)) if self._trim else len(text)
        self._held_reasoning = text[cut:]
        if cut:
            self._reasoned = True
            self._events.append(Reasoning(text[:cut]))

    def end_reasoning(self) -> None:
        """The reasoning is over; content or calls follow."""
        self._held_reasoning = ""
        self._reasoned = False
        self._after_reasoning = True

    def start_call(self, name: str, call_id: str | None = None) -> None:
        """Begins a call; one that was begun before and has no end is forgotten."""
        self._held = ""
        self._said = False
        self._after_reasoning = False
        if call_id is None or call_id in self._ids:
            call_id = self._new_id()
        self._ids.add(call_id)
        self._call = [CallStart(self.calls, call_id, name)]

    def arguments(self, text: str) -> None:
        """Adds to the arguments of the call that was begun last."""
        if text:
            self._call.append(CallArguments(self.calls, text))

    def end_call(self) -> None:
        """Ends the call that was begun last."""
        self._events += [*self._call, CallEnd(self.calls)]
        self._call = []
        self.calls += 1

    def finish(self) -> None:
        """The output is over: held whitespace is content after all."""
        if self._held and (self._said or not self.calls):
            self._events.append(Content(self._held))
        self._held = ""
