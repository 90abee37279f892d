"""Calls written as tags, a tag for each argument; values are unquoted text or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jaxserve.text.formats.lark import Lark, Tail
from jaxserve.text.formats.syntax import CallSyntax, Reading
from jaxserve.text.formats.tools import Tool, find_tool
from jaxserve.text.formats.values import ALL_TYPES, convert, is_text, schema_types
from jaxserve.text.reading.reader import Markers, Steps, drop

_TEXT = frozenset({"string"})


@dataclass(frozen=True)
class TaggedCalls(CallSyntax):
    """`section_open CALL* section_close`.

    Each CALL is `call_open NAME name_close (key_open KEY key_close value_open VALUE value_close)* call_close`.
    """

    call_open: str
    name_close: str
    """Ends the name; "" when the first argument or `call_close` does."""
    key_open: str
    key_close: str
    value_close: str
    call_close: str
    value_open: str = ""
    section_open: str = ""
    section_close: str = ""
    before_call: str = ""
    """Layout, as the model writes it: in the grammar exact, in reading all of it is optional."""
    after_name: str = ""
    after_key: str = ""
    after_value: str = ""
    after_call: str = ""
    between: str = ""
    own_section: bool = False
    """Every call has its own section."""
    trim_value: bool = False
    """A line break at either end of a value is layout."""
    after_section_open: str = ""
    tokens: tuple[str, ...] = ()
    """Special tokens inside the markers."""
    string_attribute: str = ""
    """After the key: this text, `true` or `false` (whether the value is text), and `key_close`."""

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
        keys = (self.key_open, self.key_close, self.value_open, self.value_close)
        return tuple(filter(None, (*self.opens, *keys, *self.strays, *self.tokens)))

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
            yield from self._call(reading)

    def _call(self, reading: Reading) -> Steps[None]:
        heads = (self.name_close,) if self.name_close else (self.key_open, self.call_close)
        name, marker = yield from reading.reader.text_until(Markers(heads))
        name = name.strip()
        if marker is None or not name:
            return
        reading.out.start_call(name)
        tool = find_tool(reading.tools or (), name)
        count = 0
        inside = Markers((self.key_open, self.call_close, *filter(None, (self.section_close,))))
        if marker == self.name_close:
            marker = yield from reading.reader.until(inside, drop)
        while marker == self.key_open:
            reading.out.arguments("{" if not count else ", ")
            count += 1
            if not (yield from self._argument(tool, reading)):
                return
            marker = yield from reading.reader.until(inside, drop)
        if marker is None:
            return
        reading.out.arguments("}" if count else "{}")
        reading.out.end_call()
        if marker == self.section_close:
            reading.reader.give_back(marker)

    def _argument(self, tool: Tool | None, reading: Reading) -> Steps[bool]:
        """One argument after its `key_open`; whether it was complete."""
        ends = (self.string_attribute, self.key_close) if self.string_attribute else (self.key_close,)
        key, marker = yield from reading.reader.text_until(Markers(ends))
        attribute = ""
        if self.string_attribute and marker == self.string_attribute:
            attribute, marker = yield from reading.reader.text_until(Markers((self.key_close,)))
        if marker is None:
            return False
        if self.value_open:
            yield from reading.reader.skip()
            yield from reading.reader.accept(self.value_open)
        reading.out.arguments(json.dumps(key.strip(), ensure_ascii=False) + ": ")
        types = _types(tool, key.strip(), attribute)
        return (yield from self._text_value(reading) if is_text(types) else self._typed_value(types, reading))

    def _typed_value(self, types: frozenset[str], reading: Reading) -> Steps[bool]:
        raw, marker = yield from reading.reader.text_until(Markers((self.value_close,)))
        if marker is None:
            return False
        if self.trim_value:
            raw = raw.removeprefix("\n").removesuffix("\n")
        reading.out.arguments(json.dumps(convert(raw, types), ensure_ascii=False))
        return True

    def _text_value(self, reading: Reading) -> Steps[bool]:
        """Passes text on as a JSON string while it arrives."""
        reading.out.arguments('"')
        if self.trim_value:
            yield from reading.reader.accept("\n")
        value = _EscapedText(reading, trim_end=self.trim_value)
        marker = yield from reading.reader.until(Markers((self.value_close,)), value.add)
        value.end(complete=marker is not None)
        return marker is not None

    def grammar(self, tools: Sequence[Tool], lark: Lark, *, parallel: bool) -> str:
        """See `CallSyntax`."""
        one = lark.choice([self._rule(tool, lark) for tool in tools])
        if self.own_section or not self.section_open:
            head, tail = self.section_open + self.before_call, self.after_call + self.section_close
            one = lark.rule(f"{lark.text(head)} {one} {lark.text(tail)}")
            return lark.rule(f"{one} ({lark.text(self.between)} {one})*") if parallel else one
        one = lark.rule(f"{lark.text(self.before_call)} {one} {lark.text(self.after_call)}")
        more = f" {one}*" if parallel else ""
        return lark.rule(
            f"{lark.text(self.section_open + self.after_section_open)} {one}{more} {lark.text(self.section_close)}"
        )

    def _rule(self, tool: Tool, lark: Lark) -> str:
        head = lark.text(self.call_open + tool.name + self.name_close + self.after_name)
        parts = [head]
        for key, schema, required in lark.properties(tool):
            parts.append(self._argument_rule(tool, key, schema, lark) + ("" if required else "?"))
        return " ".join([*parts, lark.text(self.call_close)])

    def _argument_rule(self, tool: Tool, key: str, schema: object, lark: Lark) -> str:
        types = _types(tool, key, "")
        layout = "\n" if self.trim_value else ""
        tail = Tail(layout, self.value_close, self.after_value)
        options = []
        for rule in lark.value(schema, types, tool, key, tail):
            attribute = f"{self.string_attribute}{str(rule.is_text).lower()}" if self.string_attribute else ""
            head = self.key_open + key + attribute + self.key_close + self.after_key + self.value_open + layout
            options.append(f"{lark.text(head)} {rule.expression}")
        return lark.choice(options)


@dataclass
class _EscapedText:
    """Text on its way into a JSON string."""

    reading: Reading
    trim_end: bool
    held: str = ""

    def add(self, text: str) -> None:
        text = self.held + text
        self.held = "\n" if self.trim_end and text.endswith("\n") else ""
        self._emit(text[: len(text) - len(self.held)])

    def end(self, *, complete: bool) -> None:
        if complete:
            self.reading.out.arguments('"')

    def _emit(self, text: str) -> None:
        self.reading.out.arguments(json.dumps(text, ensure_ascii=False)[1:-1])


def _types(tool: Tool | None, key: str, attribute: str) -> frozenset[str]:
    """The types of an argument, as its schema says, else as the model says, else text."""
    types = ALL_TYPES
    if tool is not None and key in tool.properties:
        types = schema_types(tool.properties[key], tool.parameters)
        if attribute == "true" and "string" in types:
            return _TEXT
    elif attribute != "false":
        return _TEXT
    return types
