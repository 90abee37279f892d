"""Calls written as a Python list: [f(a=1), g(b="x")]."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxserve.text.formats.lark import Lark
from jaxserve.text.formats.syntax import CallSyntax, Reading
from jaxserve.text.formats.tools import Tool, find_tool
from jaxserve.text.reading.reader import WHITESPACE, Steps

_WORD = re.compile(r"[\w.-]+")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class PythonicCalls(CallSyntax):
    """A list of calls with keyword arguments, anywhere in the answer. Values are Python literals or JSON."""

    marker: str = ""
    """A special token that may precede the list."""

    @property
    def opens(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return ("[",)

    @property
    def strays(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return self.markers

    @property
    def markers(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return (self.marker,) if self.marker else ()

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """See `CallSyntax`. A bracket alone is hardly ever a call."""
        return tuple(f"[{tool.name}(" for tool in tools)

    def parse(self, opened: str, reading: Reading) -> Steps[None]:
        """See `CallSyntax`."""
        reader, out = reading.reader, reading.out
        reader.give_back(opened)
        reader.record()
        reader.take(1)
        calls = 0
        while True:
            call = yield from self._call(reading)
            if call is None:
                break
            if not calls:
                reader.recorded()
            calls += 1
            name, arguments = call
            out.start_call(name)
            out.arguments(json.dumps(arguments, ensure_ascii=False))
            out.end_call()
            yield from reader.skip(WHITESPACE + ",")
        if calls:
            yield from reader.accept("]")
        else:
            out.content(reader.recorded())

    def _call(self, reading: Reading) -> Steps[tuple[str, dict[str, Any]] | None]:
        """One `name(key=value, ...)`; None when something else comes."""
        reader = reading.reader
        yield from reader.skip()
        name = yield from _word(reading, [tool.name for tool in reading.tools or ()])
        if not name or (reading.tools and find_tool(reading.tools, name) is None):
            return None
        if not (yield from reader.accept("(")):
            return None
        arguments: dict[str, Any] = {}
        while True:
            if (yield from reader.skip(WHITESPACE + ",")) == ")":
                reader.take(1)
                return name, arguments
            key = yield from _word(reading)
            yield from reader.skip()
            if not key or not (yield from reader.accept("=")):
                return None
            value = yield from _literal(reading)
            if value is None:
                return None
            arguments[key] = value[0]

    def grammar(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """See `CallSyntax`. Values are written as JSON, which `parse` reads as well."""
        one = lark.choice([self._rule(tool, lark) for tool in tools])
        more = f" ({lark.text(', ')} {one})*" if parallel else ""
        return lark.rule(f"{lark.text('[')} {one}{more} {lark.text(']')}")

    def _rule(self, tool: Tool, lark: Lark) -> str:
        """The arguments of one tool: the required ones first, then any of the others, in the schema's order."""
        properties = lark.properties(tool)
        rules = {key: f"{lark.text(key + '=')} {lark.json(schema, tool, key)}" for key, schema, _ in properties}
        required = [rules[key] for key, _, needed in properties if needed]
        optional = [rules[key] for key, _, needed in properties if not needed]
        comma = lark.text(", ")
        if required:
            body = f" {comma} ".join(required) + "".join(f" ({comma} {rule})?" for rule in optional)
        else:
            starts = [
                first + "".join(f" ({comma} {rule})?" for rule in optional[index + 1 :])
                for index, first in enumerate(optional)
            ]
            body = f"({' | '.join(starts)})?" if starts else ""
        return f"{lark.text(tool.name + '(')} {body} {lark.text(')')}"


def _word(reading: Reading, known: Sequence[str] = ()) -> Steps[str]:
    """An identifier, read no further than it can become a known one."""
    parts: list[str] = []
    while not known or any(name.startswith("".join(parts)) for name in known):
        char = yield from reading.reader.peek()
        part = reading.reader.match(_WORD) if char else ""
        if not part:
            break
        parts.append(part)
    return "".join(parts)


def _literal(reading: Reading) -> Steps[tuple[Any] | None]:
    """A value up to the comma or bracket after it, in a tuple of one; None when it is broken."""
    text: list[str] = []
    closers: list[str] = []
    while True:
        char = yield from reading.reader.peek()
        if not char:
            return None
        if not closers and char in ",)":
            return _evaluate("".join(text).strip())
        reading.reader.take(1)
        text.append(char)
        if char in "\"'":
            if not (yield from _quoted(char, text, reading)):
                return None
        elif char in _CLOSERS:
            closers.append(_CLOSERS[char])
        elif char in ")]}" and (not closers or closers.pop() != char):
            return None


def _quoted(quote: str, text: list[str], reading: Reading) -> Steps[bool]:
    while True:
        char = yield from reading.reader.peek()
        if not char:
            return False
        text.append(reading.reader.take(1))
        if char == "\\":
            escaped = yield from reading.reader.peek()
            text.append(reading.reader.take(len(escaped)))
        elif char == quote:
            return True


def _evaluate(text: str) -> tuple[Any] | None:
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return (value,)
