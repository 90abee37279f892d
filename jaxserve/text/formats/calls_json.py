"""Calls written as JSON objects: {"name": ..., "arguments": {...}}."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxserve.text.formats.lark import Lark
from jaxserve.text.formats.syntax import CallSyntax, Reading
from jaxserve.text.formats.tools import Tool, find_tool
from jaxserve.text.reading.events import Emitter
from jaxserve.text.reading.json_reader import capture, decoded_string, read_value
from jaxserve.text.reading.reader import WHITESPACE, Markers, Reader, Steps


@dataclass(frozen=True)
class JsonCalls(CallSyntax):
    """A JSON object for each call, between markers, in an array, or bare.

    Read: any order of keys, missing closing markers, arguments as an object or as a JSON text of one.
    """

    open: str
    """Marker before a call, or before the array. For bare objects: what the grammar writes first, usually ""."""
    close: str = ""
    lead: str = ""
    """Layout between `open` and the object."""
    trail: str = ""
    """Layout between the object and `close`."""
    between: str = ""
    """Text between two calls, or between the objects of an array."""
    array: bool = False
    """All calls are in one array."""
    other_opens: tuple[str, ...] = ()
    """Other spellings of `open` that models use."""
    bare_opens: tuple[str, ...] = ()
    """How objects begin that no marker announces. Only those of a known tool with arguments are calls."""
    arguments_key: str = "arguments"
    id_letters: int = 0
    """Length of the "id" that every object ends with; 0 = it has none."""
    instead: CallSyntax | None = None
    """What follows `open` when no JSON does."""

    @property
    def opens(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return tuple(filter(None, (self.open, *self.other_opens, *self.bare_opens)))

    @property
    def strays(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return (self.close,) if self.close else ()

    @property
    def markers(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return (*filter(None, (self.open, self.close)), *(self.instead.markers if self.instead else ()))

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return (self.open,) if self.open else self.bare_opens

    def parse(self, opened: str, reading: Reading) -> Steps[None]:
        """See `CallSyntax`."""
        if opened in self.bare_opens:
            reading.reader.give_back(opened)
            yield from self._parse_bare(reading)
            return
        char = yield from reading.reader.skip()
        if (yield from reading.reader.at_marker(Markers((*self.opens, *self.strays)))):
            return
        if self.array:
            yield from self._parse_array(opened, char, reading)
        elif char == "{":
            yield from self._object(reading)
            yield from reading.reader.skip()
            if self.close:
                yield from reading.reader.accept(self.close)

    def _parse_array(self, opened: str, char: str, reading: Reading) -> Steps[None]:
        if char not in ("[", "{") and self.instead is not None and not opened.endswith("["):
            yield from self.instead.parse(opened, reading)
            return
        if char == "[":
            reading.reader.take(1)
        while (yield from reading.reader.skip(WHITESPACE + ",")) == "{":
            yield from self._object(reading)
        yield from reading.reader.accept("]")

    def _parse_bare(self, reading: Reading) -> Steps[None]:
        reader, call = reading.reader, _Call(reading.out)
        reader.record()
        possible = yield from self._members(call, reading, bare=True)
        if possible and not call.started and call.name is not None and call.early is not None:
            call.start()
        if not call.started:
            reading.out.content(reader.recorded())
            if not possible:
                yield from read_value(reader, reading.out.content, depth=1)
            elif (yield from reader.accept("}")):
                reading.out.content("}")
            return
        reader.recorded()
        yield from call.end(reader)
        if (yield from reader.skip()) in (";", ","):
            reader.take(1)

    def _object(self, reading: Reading) -> Steps[None]:
        call = _Call(reading.out)
        yield from self._members(call, reading, bare=False)
        yield from call.end(reading.reader)

    def _members(self, call: _Call, reading: Reading, *, bare: bool) -> Steps[bool]:
        """Reads an object up to its closing brace; False as soon as a bare one can't be a call."""
        reader = reading.reader
        reader.take(1)
        while (yield from reader.skip(WHITESPACE + ",")) == '"':
            key = decoded_string((yield from capture(reader)))
            char = yield from reader.skip(WHITESPACE + ":")
            if key in ("arguments", "parameters") and not call.passed_on:
                if bare and char not in ("{", '"', ""):
                    return False
                yield from self._arguments(call, reading)
            elif key in ("name", "function") and char == '"' and call.name is None:
                call.name = decoded_string((yield from capture(reader)))
                if bare and not self._known(call.name, reading):
                    return False
                if not bare:
                    call.start()
            elif bare and key not in ("type", "id", "function"):
                return False
            else:
                value = yield from capture(reader, Markers(self.strays))
                if bare and key == "type" and decoded_string(value) not in (None, "function"):
                    return False
        return True

    def _arguments(self, call: _Call, reading: Reading) -> Steps[None]:
        """Passes the arguments on as they come, or keeps them until the name has come."""
        stops = Markers(self.strays)
        if call.name is None:
            call.early = _as_object((yield from capture(reading.reader, stops)))
            return
        call.start()
        call.passed_on = True
        if (yield from reading.reader.peek()) == "{":
            call.whole = yield from read_value(reading.reader, reading.out.arguments, stops)
            return
        text = yield from capture(reading.reader, stops)
        call.whole = text is not None
        reading.out.arguments(_as_object(text))

    def _known(self, name: str | None, reading: Reading) -> bool:
        return name is not None and (not reading.tools or find_tool(reading.tools, name) is not None)

    def grammar(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """See `CallSyntax`."""
        one = lark.choice([self._call(tool, lark) for tool in tools])
        if self.array:
            more = f" ({lark.text(self.between)} {one})*" if parallel else ""
            head = self.open if self.open.endswith("[") else self.open + "["
            return lark.rule(f"{lark.text(head)} {one}{more} {lark.text(']')}")
        lead = f"({lark.text(self.lead)})?" if self.lead else ""
        one = lark.rule(f"{lark.text(self.open)} {lead} {one} {lark.text(self.trail + self.close)}")
        return lark.rule(f"{one} ({lark.text(self.between)} {one})*") if parallel else one

    def _call(self, tool: Tool, lark: Lark) -> str:
        # The blank is optional: a model may have written some of this before the grammar took over.
        blank = f"({lark.text(' ')})?"
        names = (lark.text('{"name":'), lark.text(f'"{tool.name}",'), lark.text(f'"{self.arguments_key}":'))
        head = f" {blank} ".join(names) + f" {blank}"
        tail = "}"
        if self.id_letters:
            letters = lark.pattern(f"[a-zA-Z0-9]{{{self.id_letters}}}")
            before, after = lark.text(', "id": "'), lark.text('"' + tail)
            return f"{head} {lark.arguments(tool)} {before} {letters} {after}"
        return f"{head} {lark.arguments(tool)} {lark.text(tail)}"


@dataclass
class _Call:
    """One call while it is read."""

    out: Emitter
    name: str | None = None
    early: str | None = None
    """Arguments that came before the name."""
    started: bool = False
    passed_on: bool = False
    """The arguments have been passed on, or are being."""
    whole: bool = False
    """They were read to their end."""

    def start(self) -> None:
        if self.name and not self.started:
            self.out.start_call(self.name)
            self.started = True
            if self.early is not None:
                self.out.arguments(self.early)
                self.passed_on = self.whole = True

    def end(self, reader: Reader) -> Steps[None]:
        """Reads the closing brace. A call whose text ends before its arguments do is none."""
        closed = yield from reader.accept("}")
        if not self.started or (reader.ended and not (closed or self.whole)):
            return
        if not self.passed_on:
            self.out.arguments("{}")
        self.out.end_call()


def _as_object(text: str | None) -> str:
    """Arguments that may be a JSON text of an object, or none."""
    decoded = decoded_string(text) or text or ""
    return decoded if decoded.lstrip().startswith("{") else "{}"
