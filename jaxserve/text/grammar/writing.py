"""Writes and tries the grammar of one request: what a worker process does.

A tool that is not `strict` never refuses a request: what of its schema can't be enforced is left to the model. Keywords
the grammar engine lacks are left out one by one; where that is not enough, the tool takes any arguments of its names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llguidance import LLTokenizer

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.lark import Lark
from jaxserve.text.formats.syntax import CallSyntax
from jaxserve.text.formats.tools import Tool
from jaxserve.text.grammar.gbnf import GbnfError, gbnf_to_lark
from jaxserve.text.grammar.llg import compile_lark
from jaxserve.text.grammar.refusals import refusal_of
from jaxserve.text.isolation.limits import resident_memory

MAX_GRAMMAR_CHARS = 100_000
"""Of a GBNF grammar; the largest published one has 3,000."""


@dataclass(frozen=True)
class Content:
    """What one request wants, resolved to what a grammar is made of. Plain values."""

    response: tuple[str, str] | None
    """(kind: schema or grammar, its text)."""
    tools: tuple[Tool, ...]
    forced: bool
    parallel: bool
    chat: bool

    @property
    def place(self) -> str:
        """The field that asks for the grammar."""
        if self.response is None:
            return "tools"
        return "response_format.grammar" if self.response[0] == "grammar" else "response_format"

    def refusal(self, reason: str) -> InvalidRequest:
        """The request refused."""
        what = "not" if self.response else "a schema is not"
        return InvalidRequest(self.place, f"{self.place}: {what} supported: {reason}")


@dataclass(frozen=True)
class Written:
    """A grammar that compiles."""

    source: str
    """llguidance's Lark."""
    relaxed: tuple[tuple[str, str], ...]
    """(tool, what of its schema is left to the model)."""
    held_bytes: int
    """Memory that the compiled grammar takes, roughly."""


class Writer:
    """Writes grammars for one model.

    Args:
        tokenizer: what they are tried with.
        calls: how the model writes calls.
        marker_ids: its markers that are single tokens.
    """

    def __init__(self, tokenizer: LLTokenizer, calls: CallSyntax, marker_ids: Mapping[str, int]) -> None:
        self._tokenizer = tokenizer
        self._calls = calls
        self._marker_ids = marker_ids

    def write(self, content: Content) -> Written | InvalidRequest:
        """The grammar, or why there is none."""
        try:
            return self._written(content)
        except InvalidRequest as refusal:
            return refusal

    def _written(self, content: Content) -> Written:
        if not content.tools:
            return self._tried(content)
        try:
            return self._tried(content)
        except InvalidRequest:
            if content.response is not None:
                self._tried(replace(content, tools=()))  # not a tool's fault: its refusal is the one to tell
            tried = [self._possible(content, tool) for tool in content.tools]
        left = tuple((tool.name, why) for tool, why in tried if why)
        if not left:  # each alone is possible, together they are too much
            tried = [(tool if tool.strict else freed(tool), "") for tool in content.tools]
            left = tuple((tool.name, "all of it") for tool in content.tools if not tool.strict)
        written = self._tried(replace(content, tools=tuple(tool for tool, _ in tried)))
        return replace(written, relaxed=(*written.relaxed, *left))

    def _possible(self, content: Content, tool: Tool) -> tuple[Tool, str]:
        """A tool whose grammar compiles, and why it isn't the one that was given.

        Raises:
            InvalidRequest: there is none, and it is strict.
        """
        try:
            self._tried(replace(content, response=None, tools=(tool,), forced=True))
        except InvalidRequest as refusal:
            reason = refusal.message.partition(": ")[2]
            if tool.strict:
                place = f"{tool.place}.parameters"
                raise InvalidRequest(place, f"{place}: the tool {tool.name!r} is strict: {reason}") from None
            return freed(tool), reason
        return tool, ""

    def _tried(self, content: Content) -> Written:
        lark = Lark(self._marker_ids, relax=True)
        source = lark.finish(self._expression(content, lark))
        before = resident_memory()
        matcher = compile_lark(self._tokenizer, source)
        if matcher.is_error():
            raise content.refusal(refusal_of(matcher.get_error()))
        return Written(source, tuple(lark.relaxed), max(resident_memory() - before, 0))

    def _expression(self, content: Content, lark: Lark) -> str:
        calls, options = self._calls, []
        if content.response is None and not content.forced:
            return calls.after_trigger(content.tools, lark, parallel=content.parallel)
        if content.response is not None:
            answer = _response_rule(content.response, lark)
            options.append(calls.framed(answer, lark) if content.chat else answer)
        if content.tools:
            options.append(calls.grammar(content.tools, lark, parallel=content.parallel))
        before = calls.before_answer(lark) if content.chat else ""
        return f"{before} {lark.choice(options)}"


def _response_rule(response: tuple[str, str], lark: Lark) -> str:
    kind, text = response
    if kind == "grammar":
        return lark.nested(_gbnf(text))
    return lark.schema(json.loads(text), "response_format")


def _gbnf(text: str) -> str:
    """A GBNF grammar as Lark."""
    place = "response_format.grammar"
    if len(text) > MAX_GRAMMAR_CHARS:
        raise InvalidRequest(place, f"{place}: longer than {MAX_GRAMMAR_CHARS} characters")
    try:
        return gbnf_to_lark(text)
    except GbnfError as error:
        raise InvalidRequest(place, f"{place}: {str(error)[:300]}") from None


def freed(tool: Tool) -> Tool:
    """The tool with any values for the arguments that it names, and any others."""
    properties: dict[str, object] = {name: {} for name in tool.properties}
    return replace(tool, parameters={"type": "object", "properties": properties, "additionalProperties": True})
