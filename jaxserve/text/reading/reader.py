"""Reading a text that arrives in pieces: generators that wait for more, and markers that are never cut in two.

A parser is a generator over a `Reader`: it yields when it needs more text and is resumed when there is some. What it
reads depends on the text alone, never on how the text was split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A part of a parser: yields while it waits for text, returns its result."""
WHITESPACE = " \t\r\n"


def drop(text: str) -> None:
    """Takes text that is for nobody."""


class Markers:
    """A set of texts to look for. Immutable."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._by_first: dict[str, tuple[str, ...]] = {}
        for text in sorted({text for text in texts if text}, key=len, reverse=True):
            self._by_first[text[0]] = (*self._by_first.get(text[0], ()), text)

    def find(self, text: str, start: int, *, ended: bool) -> tuple[int, str | None]:
        """The first marker at or after `start`.

        Returns:
            (its position, the marker), or (position of the first text that may still become one, None).
        """
        best = len(text)
        for first in self._by_first:
            at = text.find(first, start, best)
            while at >= 0:
                if self.at(text, at, ended=ended) is not None:
                    best = at
                    break
                at = text.find(first, at + 1, best)
        if best == len(text):
            return best, None
        return best, self.at(text, best, ended=ended) or None

    def at(self, text: str, at: int, *, ended: bool) -> str | None:
        """The marker at a position, "" when one may be beginning there, None when there is none."""
        possible: str | None = None
        for marker in self._by_first.get(text[at], ()):
            if text.startswith(marker, at):
                return marker if possible is None else possible
            if not ended and len(text) - at < len(marker) and marker.startswith(text[at:]):
                possible = ""  # a longer marker may come: wait for it
        return possible


class Reader:
    """Text that has arrived and not been read."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self.ended = False
        self._taken: list[str] | None = None

    def feed(self, text: str) -> None:
        """Adds text that arrived."""
        self._text = self._text[self._at :] + text
        self._at = 0

    @property
    def rest(self) -> str:
        """Everything that has arrived and not been read."""
        return self._text[self._at :]

    @property
    def empty(self) -> bool:
        """Whether all that has arrived was read."""
        return self._at == len(self._text)

    def record(self) -> None:
        """Remembers what is read from now on, so that `recorded` can give it back."""
        self._taken = []

    def recorded(self) -> str:
        """What was read since `record`; stops remembering."""
        taken = "".join(self._taken or ())
        self._taken = None
        return taken

    def give_back(self, text: str) -> None:
        """Puts text back, to be read again."""
        self._text = text + self.rest
        self._at = 0

    def take(self, count: int) -> str:
        """Reads `count` characters that have arrived."""
        taken = self._text[self._at : self._at + count]
        self._at += count
        if self._taken is not None:
            self._taken.append(taken)
        return taken

    def peek(self) -> Steps[str]:
        """The next character, "" at the end."""
        while self._at == len(self._text):
            if self.ended:
                return ""
            yield
        return self._text[self._at]

    def skip(self, chars: str = WHITESPACE) -> Steps[str]:
        """Reads over characters of a set; returns the one after them, "" at the end."""
        while True:
            char = yield from self.peek()
            if not char or char not in chars:
                return char
            self.take(1)

    def accept(self, literal: str) -> Steps[bool]:
        """Reads a literal if it comes next."""
        while len(self._text) - self._at < len(literal):
            if self.ended or not literal.startswith(self.rest):
                return False
            yield
        if not self._text.startswith(literal, self._at):
            return False
        self.take(len(literal))
        return True

    def match(self, pattern: re.Pattern[str]) -> str:
        """Reads what a pattern matches here of the text that has arrived; "" for nothing."""
        found = pattern.match(self._text, self._at)
        return self.take(found.end() - self._at) if found else ""

    def at_marker(self, markers: Markers) -> Steps[bool]:
        """Whether a marker comes next; reads nothing."""
        while self._at < len(self._text):
            found = markers.at(self._text, self._at, ended=self.ended)
            if found != "":
                return found is not None
            yield
        return False

    def until(self, markers: Markers, emit: Callable[[str], None]) -> Steps[str | None]:
        """Emits text up to a marker and reads the marker; None when the text ends without one."""
        while True:
            at, marker = markers.find(self._text, self._at, ended=self.ended)
            if at > self._at:
                emit(self.take(at - self._at))
            if marker is not None:
                self.take(len(marker))
                return marker
            if self.ended:
                return None
            yield

    def text_until(self, markers: Markers) -> Steps[tuple[str, str | None]]:
        """The text up to a marker, and the marker."""
        parts: list[str] = []
        marker = yield from self.until(markers, parts.append)
        return "".join(parts), marker
