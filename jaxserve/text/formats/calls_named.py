"""Calls whose name stands between markers, followed by a JSON object of arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jaxserve.text.formats.lark import Lark
from jaxserve.text.formats.syntax import CallSyntax, Reading
from jaxserve.text.formats.tools import Tool
from jaxserve.text.reading.json_reader import read_value
from jaxserve.text.reading.reader import Markers, Steps, drop

_INDEXED = re.compile(r"(?:functions\.)?([\w.-]+):(\d+)\Z")


@dataclass(frozen=True)
class NamedCalls(CallSyntax):
    """`section_open (call_open name name_close {json} call_close)* section_close`."""

    call_open: str
    name_close: str
    call_close: str = ""
    section_open: str = ""
    section_close: str = ""
    before_name: str = ""
    """Text before the name that is not part of it."""
    before_json: str = ""
    after_json: str = ""
    between: str = ""
    indexed: bool = False
    """The name is `functions.NAME:INDEX`, which is also the call's id."""
    tokens: tuple[str, ...] = ()
    """Special tokens inside the markers."""
    id_marker: str = ""
    """Between the name and `name_close` the model may write this and an id."""

    @property
    def opens(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return tuple(filter(None, (self.section_open, self.call_open)))

    @property
    def strays(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return tuple(filter(None, (self.call_close, self.section_close)))

    @property
    def markers(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return tuple(filter(None, (*self.opens, self.name_close, self.id_marker, *self.strays, *self.tokens)))

    @property
    def example(self) -> str:
        """A call of `function_name`, as a model is told to write it."""
        head = f"{self.section_open}{self.call_open}{self.before_name}function_name{self.name_close}{self.before_json}"
        return f'{head}{{"parameter": "value"}}{self.after_json}{self.call_close}{self.section_close}'

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return (self.section_open or self.call_open,)

    def parse(self, opened: str, reading: Reading) -> Steps[None]:
        """See `CallSyntax`."""
        if opened == self.call_open:
            yield from self._call(reading)
            return
        inside = Markers((self.call_open, self.section_close))
        while (yield from reading.reader.until(inside, drop)) == self.call_open:
            if (yield from self._call(reading)) == self.section_close:
                return

    def _call(self, reading: Reading) -> Steps[str | None]:
        """Reads one call; returns the marker that ended it."""
        ends = Markers(filter(None, (self.call_close, self.section_close, self.call_open)))
        header, marker = yield from reading.reader.text_until(Markers((self.name_close, *self.strays)))
        name, call_id = self._name(header)
        if marker != self.name_close:
            return marker
        if not name:
            return (yield from reading.reader.until(ends, drop))
        yield from reading.reader.skip()
        if self.before_json:
            yield from reading.reader.accept(self.before_json)
        reading.out.start_call(name, call_id)
        complete = bool(char := (yield from reading.reader.skip()))
        if char == "{":
            complete = yield from read_value(reading.reader, reading.out.arguments, ends)
        else:
            reading.out.arguments("{}")
        if complete or not reading.reader.ended:
            reading.out.end_call()
        if not self.call_close:
            return None
        return (yield from reading.reader.until(ends, drop))

    def _name(self, header: str) -> tuple[str, str | None]:
        header = header.strip()
        if self.indexed:
            found = _INDEXED.match(header)
            return (found[1], f"functions.{found[1]}:{found[2]}") if found else ("", None)
        if self.id_marker and self.id_marker in header:
            header, _, call_id = header.partition(self.id_marker)
            return header.strip(), call_id.strip() or None
        return header.removeprefix(self.before_name), None

    def grammar(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """See `CallSyntax`."""
        index = f" {lark.text(':')} {lark.pattern('0|[1-9][0-9]{0,2}')}" if self.indexed else ""
        calls = []
        for tool in tools:
            prefix = "functions." if self.indexed else self.before_name
            head = lark.text(self.call_open + prefix + tool.name) + index
            middle, tail = lark.text(self.name_close + self.before_json), lark.text(self.after_json + self.call_close)
            calls.append(f"{head} {middle} {lark.arguments(tool)} {tail}")
        one = lark.choice(calls)
        more = f" ({lark.text(self.between)} {one})*" if parallel else ""
        return lark.rule(f"{lark.text(self.section_open)} {one}{more} {lark.text(self.section_close)}")
