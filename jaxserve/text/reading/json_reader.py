"""JSON text read in pieces and passed on as it is, without waiting for its end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from jaxserve.text.reading.reader import WHITESPACE, Markers, Reader, Steps

_PLAIN = re.compile(r'[^"\\]+')
_NO_MARKERS = Markers(())


def read_string(reader: Reader, emit: Callable[[str], None]) -> Steps[bool]:
    """Passes a JSON string on, from the quote that comes next to the last; False when the text ended inside it."""
    emit(reader.take(1))
    while True:
        if not (yield from reader.peek()):
            return False
        plain = reader.match(_PLAIN)
        if plain:
            emit(plain)
            continue
        if (yield from reader.peek()) == '"':
            emit(reader.take(1))
            return True
        backslash = reader.take(1)
        escaped = yield from reader.peek()
        emit(backslash + reader.take(len(escaped)))


def read_value(
    reader: Reader, emit: Callable[[str], None], stops: Markers = _NO_MARKERS, *, depth: int = 0
) -> Steps[bool]:
    """Passes one JSON value on, from its first character (or from inside `depth` brackets) to its last.

    Whitespace after the value is not read. Inside, only what `stops` holds is recognised, and only outside of strings:
    there a broken value ends.

    Returns:
        Whether the value was complete.
    """
    while True:
        char = yield from reader.peek()
        if not char:
            return False
        if (yield from reader.at_marker(stops)):
            return False
        if char == '"':
            if not (yield from read_string(reader, emit)):
                return False
            if not depth:
                return True
        elif char in "{[":
            emit(reader.take(1))
            depth += 1
        elif char in "}]":
            if not depth:
                return False
            emit(reader.take(1))
            depth -= 1
            if not depth:
                return True
        elif depth:
            emit(reader.take(1))
        else:
            return (yield from _read_word(reader, emit))


def _read_word(reader: Reader, emit: Callable[[str], None]) -> Steps[bool]:
    """A number, true, false or null."""
    found = False
    while True:
        char = yield from reader.peek()
        if not char or char in WHITESPACE or char in ',:]}"{[<|':
            return found
        emit(reader.take(1))
        found = True


def capture(reader: Reader, stops: Markers = _NO_MARKERS) -> Steps[str | None]:
    """The text of one JSON value; None when it is broken."""
    parts: list[str] = []
    complete = yield from read_value(reader, parts.append, stops)
    return "".join(parts) if complete else None


def decoded_string(text: str | None) -> str | None:
    """The string that a JSON text stands for; None when it is not one."""
    try:
        value = json.loads(text) if text is not None else None
    except ValueError:
        return None
    return value if isinstance(value, str) else None
