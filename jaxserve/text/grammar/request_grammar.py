"""Requests to grammars: response formats, forced tool calls, and tool calls that the model chooses to make.

Compiling takes 1 to 300 ms without the GIL: call it on a worker thread. What was compiled is kept, so that the same
schema costs nothing the second time.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.bound_format import BoundFormat
from jaxserve.text.formats.lark import Lark
from jaxserve.text.formats.schema import load_schema
from jaxserve.text.formats.tools import Tool
from jaxserve.text.grammar.gbnf import GbnfError, gbnf_to_lark
from jaxserve.text.grammar.llg import LIMITS, build_tokenizer
from jaxserve.text.grammar.matcher import MaskFiller, Matcher, Rules, Start
from jaxserve.text.grammar.wish import OutputWish

__all__ = ["CompiledGrammar", "GrammarCompiler", "MaskFiller", "Matcher"]

MAX_GRAMMAR_CHARS = 200_000


@dataclass(frozen=True, eq=False)
class CompiledGrammar:
    """A grammar, ready to be followed by any number of sequences. Immutable."""

    rules: Rules
    relaxed: tuple[str, ...] = ()
    """What non-strict tools ask for and the grammar leaves to the model."""
    source: str = ""
    """The grammar's text: GBNF as it was given, or what schemas and tools were turned into (llguidance's Lark)."""
    place: str = "response_format"
    """The request's field that it comes from."""

    def matcher(self) -> Matcher:
        """A matcher at the beginning of an output."""
        return Matcher(self.rules)


@dataclass(frozen=True)
class _Task:
    """What one request wants, resolved to what a grammar is made of."""

    response: tuple[str, str] | None
    """(kind: schema or grammar, its text)."""
    tools: tuple[Tool, ...]
    forced: bool
    parallel: bool
    chat: bool


_Compiled = tuple[LLMatcher, tuple[str, ...], str]
"""A matcher to copy, what was relaxed, and the grammar's text."""


class GrammarCompiler:
    """Compiles and remembers grammars for one model. Thread-safe.

    Args:
        bound: the model's format, with its tokenizer.
        vocab_size: of the model; bitmasks have ceil(vocab_size / 32) words.
        cache_size: grammars to remember.
    """

    def __init__(self, bound: BoundFormat, *, vocab_size: int, cache_size: int = 128) -> None:
        self._bound = bound
        self._vocab_size = vocab_size
        self._stops = tuple(sorted({*bound.stop_ids, *bound.tokenizer.eos_ids}))
        self._tokenizer = build_tokenizer(
            bound.tokenizer, vocab_size, markers=bound.marker_ids.values(), stops=self._stops
        )
        encoded = (bound.tokenizer.encode(text, add_special_tokens=False) for text in ("\n", "\n\n"))
        self._blanks = tuple(ids[0] for ids in encoded if len(ids) == 1)
        self._cache: OrderedDict[str, _Compiled] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()

    def compile(self, wish: OutputWish, *, reasoning_open: bool = False) -> CompiledGrammar | None:
        """The grammar of a request, or None when nothing is constrained.

        Args:
            wish: of the request; its reasoning budget is no grammar's business.
            reasoning_open: the prompt has opened the reasoning.

        Raises:
            InvalidRequest: the schema, grammar or tools can't be honoured; names the field and the keyword.
        """
        response = _response(wish.response_format)
        if response is None and not wish.tools:
            return None
        task = _Task(response, wish.tools, wish.forced, wish.parallel, wish.chat)
        prototype, relaxed, source = self._remembered(task)
        start = self._start(task, wish.reasoning, reasoning_open)
        return CompiledGrammar(self._rules(prototype, start, banned=self._banned(task)), relaxed, source, _place(task))

    def _remembered(self, task: _Task) -> _Compiled:
        key = repr((task.response, task.forced, task.parallel, task.chat, task.tools))
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        compiled = self._compile(task)
        with self._lock:
            self._cache[key] = compiled
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return compiled

    def _compile(self, task: _Task) -> _Compiled:
        lark = Lark(self._bound.marker_ids, relax=not task.forced)
        start = self._expression(task, lark)
        source = lark.finish(start)
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=LIMITS)
        if matcher.is_error():
            raise _refusal(task, matcher.get_error())
        if task.response is not None and task.response[0] == "grammar" and not task.tools:
            source = task.response[1]
        return matcher, tuple(lark.relaxed), source

    def _expression(self, task: _Task, lark: Lark) -> str:
        calls, options = self._bound.format.calls, []
        if task.response is None and not task.forced:
            return calls.after_trigger(task.tools, lark, parallel=task.parallel)
        if task.response is not None:
            answer = _response_rule(task.response, lark)
            options.append(calls.framed(answer, lark) if task.chat else answer)
        if task.tools:
            options.append(calls.grammar(task.tools, lark, parallel=task.parallel))
        before = calls.before_answer(lark) if task.chat else ""
        return f"{before} {lark.choice(options)}"

    def _start(self, task: _Task, reasoning: bool, reasoning_open: bool) -> Start:
        bound = self._bound
        waits = task.response is None and not task.forced
        triggers = bound.format.calls.triggers(task.tools) if waits else ()
        thinking = bound.format.thinking
        if thinking is None or not task.chat or not (reasoning or reasoning_open):
            return Start(triggers, replays_trigger=bound.format.calls.replays_trigger)
        return Start(
            triggers,
            reasoning_open=reasoning_open,
            may_reason=not reasoning_open and bound.open_reasoning_id is not None,
            think_open=thinking.open,
            think_close=thinking.close,
            enders=bound.format.calls.triggers(task.tools) if thinking.ended_by_calls and task.tools else (),
            layout="" if waits else thinking.after_close,
        )

    def _banned(self, task: _Task) -> tuple[int, ...]:
        """Tokens that would begin a call without the trigger the grammar waits for."""
        calls = self._bound.format.calls
        opens = set(calls.opens) - set(calls.triggers(task.tools)) if task.tools else set()
        return tuple(sorted(id_ for text, id_ in self._bound.marker_ids.items() if text in opens))

    def _rules(self, prototype: LLMatcher, start: Start, *, banned: tuple[int, ...]) -> Rules:
        bound = self._bound
        return Rules(
            prototype,
            start,
            self._tokenize,
            bound.tokenizer.token_bytes,
            self._stops,
            bound.open_reasoning_id if start.may_reason else None,
            self._vocab_size,
            self._blanks if start.may_reason or start.layout else (),
            banned,
        )

    def _tokenize(self, text: bytes) -> list[int]:
        """Tokens of a text, markers as the tokens they are."""
        ids = self._bound.marker_ids
        if not ids:
            return list(self._tokenizer.tokenize_bytes(text))
        pattern = b"(" + b"|".join(re.escape(marker.encode()) for marker in sorted(ids, key=len, reverse=True)) + b")"
        tokens: list[int] = []
        for part in re.split(pattern, text):
            marker = ids.get(part.decode("utf-8", "replace"))
            tokens += [marker] if marker is not None else self._tokenizer.tokenize_bytes(part)
        return tokens


def _response(response_format: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """(kind, text) of a response format; None for free text."""
    if response_format is None or response_format.get("type", "text") == "text":
        return None
    kind = response_format["type"]
    if kind == "grammar":
        grammar = response_format.get("grammar")
        if not isinstance(grammar, str) or not grammar.strip():
            raise InvalidRequest("response_format.grammar", "response_format.grammar: needs a GBNF grammar")
        return "grammar", grammar
    if kind not in ("json_object", "json_schema"):
        raise InvalidRequest("response_format.type", f"response_format.type: {kind!r} is not known")
    place = "json_schema" if response_format.get("json_schema") is not None else "schema"
    given = response_format.get(place)
    if given is None:
        if kind == "json_schema":
            raise InvalidRequest("response_format.json_schema", "response_format.json_schema: needs a JSON Schema")
        return "object", "{}"
    schema = load_schema(_unwrapped(given), f"response_format.{place}")
    return "object" if kind == "json_object" else "schema", json.dumps(schema)


def _unwrapped(given: Any) -> Any:
    """The schema inside OpenAI's wrapper {"name", "schema", "strict"}, or the schema itself."""
    if isinstance(given, Mapping) and "schema" in given and not {"type", "properties", "$ref", "anyOf"} & set(given):
        return given["schema"]
    return given


def _response_rule(response: tuple[str, str], lark: Lark) -> str:
    kind, text = response
    if kind == "grammar":
        return _gbnf(text, lark)
    schema = json.loads(text)
    if kind == "object" and isinstance(schema, dict):
        schema = {"type": "object", **schema}
    return lark.schema(schema, "response_format")


def _gbnf(text: str, lark: Lark) -> str:
    """A GBNF grammar as a nested Lark grammar."""
    place = "response_format.grammar"
    if len(text) > MAX_GRAMMAR_CHARS:
        raise InvalidRequest(place, f"{place}: longer than {MAX_GRAMMAR_CHARS} characters")
    try:
        return lark.nested(gbnf_to_lark(text))
    except GbnfError as error:
        raise InvalidRequest(place, f"{place}: {str(error)[:300]}") from None


def _refusal(task: _Task, error: str) -> InvalidRequest:
    """What llguidance says, without the grammar that it quotes."""
    reason = re.sub(r"^(?:(?:at )?\d+\(\d+\): |failed to compile JSON schema: )+", "", " ".join(error.split()))[:300]
    place = _place(task)
    return InvalidRequest(place, f"{place}: {'not' if task.response else 'a schema is not'} supported: {reason}")


def _place(task: _Task) -> str:
    """The field that asks for the grammar."""
    if task.response is None:
        return "tools"
    return "response_format.grammar" if task.response[0] == "grammar" else "response_format"
