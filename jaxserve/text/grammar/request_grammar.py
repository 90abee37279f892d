"""Requests to grammars: response formats, forced tool calls, and tool calls that the model chooses to make.

A grammar is tried in a worker process and then compiled (`trial`): 5 to 600 ms, or seconds until it is refused. Call it
where that is no harm. What was compiled or refused is kept, so that the same schema costs nothing the second time.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from llguidance import LLMatcher

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.bound_format import BoundFormat
from jaxserve.text.grammar.llg import compile_lark, vocabulary_of
from jaxserve.text.grammar.matcher import MaskFiller, Matcher, Rules, Start
from jaxserve.text.grammar.memory import Memory
from jaxserve.text.grammar.sparing import write_sparing
from jaxserve.text.grammar.trial import GrammarTask, Trials
from jaxserve.text.grammar.wish import OutputWish
from jaxserve.text.grammar.writing import Content, Written
from jaxserve.text.isolation import Overrun
from jaxserve.text.schemas.reading import load_schema
from jaxserve.text.tokenizers.tokenizer import Tokenizer

__all__ = ["CompiledGrammar", "GrammarCompiler", "MaskFiller", "Matcher"]

_log = logging.getLogger(__name__)

MAX_SOURCE_CHARS = 1_000_000
"""Of what a request's schemas, tools and grammar are turned into."""
REMEMBERED = 256
"""Grammars and refusals."""
REMEMBERED_BYTES = 512 * 2**20
"""Memory of the compiled grammars that are remembered, as far as their workers could tell."""


@dataclass(frozen=True, eq=False)
class CompiledGrammar:
    """A grammar, ready to be followed by any number of sequences. Immutable."""

    rules: Rules
    relaxed: tuple[tuple[str, str], ...] = ()
    """(tool, what of its schema is left to the model)."""
    source: str = ""
    """The grammar's text: GBNF as it was given, or what schemas and tools were turned into (llguidance's Lark)."""
    place: str = "response_format"
    """The request's field that it comes from."""

    def matcher(self) -> Matcher:
        """A matcher at the beginning of an output."""
        return Matcher(self.rules)


_Compiled = tuple[LLMatcher, Written]
"""A matcher to copy, and the grammar's text."""


class GrammarCompiler:
    """Compiles and remembers grammars for one model. Thread-safe.

    Args:
        bound: the model's format, with its tokenizer.
        vocab_size: of the model; bitmasks have ceil(vocab_size / 32) words.
    """

    def __init__(self, bound: BoundFormat, *, vocab_size: int) -> None:
        self._bound = bound
        self._vocab_size = vocab_size
        self._stops = tuple(sorted({*bound.stop_ids, *bound.tokenizer.eos_ids}))
        vocabulary = vocabulary_of(bound.tokenizer, vocab_size, markers=bound.marker_ids.values(), stops=self._stops)
        # A function of the tokenizer, not a method: what native code holds, Python can't collect in a circle.
        self._tokenizer = vocabulary.build(partial(_encode, bound.tokenizer))
        self.trials = Trials(GrammarTask(vocabulary, bound.format.calls, dict(bound.marker_ids)))
        encoded = (bound.tokenizer.encode(text, add_special_tokens=False) for text in ("\n", "\n\n"))
        self._blanks = tuple(ids[0] for ids in encoded if len(ids) == 1)
        self._memory: Memory[_Compiled | InvalidRequest] = Memory(REMEMBERED, REMEMBERED_BYTES)

    def compile(self, wish: OutputWish, *, reasoning_open: bool = False, wait: bool = True) -> CompiledGrammar | None:
        """The grammar of a request, or None when nothing is constrained.

        Args:
            wish: of the request; its reasoning budget is no grammar's business.
            reasoning_open: the prompt has opened the reasoning.
            wait: False: only what has been compiled or refused before.

        Raises:
            InvalidRequest: the schema, grammar or tools can't be honoured; names the field and the keyword.
            NotReady: it would have to be compiled, and `wait` is false.
            Overloaded: too many grammars wait to be compiled.
        """
        response = _response(wish.response_format)
        if response is None and not wish.tools:
            return None
        task = Content(response, wish.tools, wish.forced, wish.parallel, wish.chat)
        prototype, written = self._remembered(task, wait=wait)
        start = self._start(task, wish.reasoning, reasoning_open)
        rules = self._rules(prototype, start, banned=self._banned(task))
        return CompiledGrammar(rules, written.relaxed, _shown(task, written), task.place)

    def _remembered(self, task: Content, *, wait: bool) -> _Compiled:
        key = repr((task.response, task.forced, task.parallel, task.chat, task.tools))
        if len(key) > MAX_SOURCE_CHARS:
            place = task.place
            raise InvalidRequest(place, f"{place}: longer than {MAX_SOURCE_CHARS} characters")
        found = self._memory.get(key, lambda: self._compiled_or_refused(task), wait=wait)
        if isinstance(found, InvalidRequest):
            raise InvalidRequest(found.field, found.message)
        return found

    def _compiled_or_refused(self, task: Content) -> tuple[_Compiled | InvalidRequest, int]:
        try:
            return self._compile(task)
        except InvalidRequest as refusal:
            return InvalidRequest(refusal.field, refusal.message), len(refusal.message)
        except Overrun as overrun:
            return task.refusal(str(overrun)), 0

    def _compile(self, task: Content) -> tuple[_Compiled, int]:
        written = write_sparing(self.trials, task)
        matcher = compile_lark(self._tokenizer, written.source)
        for name, what in written.relaxed:
            _log.info("the tool %r is not wholly enforced: %s", name, what)
        return (matcher, written), written.held_bytes + len(written.source)

    def _start(self, task: Content, reasoning: bool, reasoning_open: bool) -> Start:
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

    def _banned(self, task: Content) -> tuple[int, ...]:
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


def _encode(tokenizer: Tokenizer, text: bytes) -> list[int]:
    """Tokens of a text without markers, as llguidance asks for them."""
    return tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False, parse_special=False)


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
        return "schema", '{"type": "object"}'
    schema = load_schema(_unwrapped(given), f"response_format.{place}")
    return "schema", json.dumps(_object_schema(schema, place) if kind == "json_object" else schema)


def _object_schema(schema: dict[str, Any] | bool, place: str) -> dict[str, Any]:
    """The schema of a `json_object`, whose values are objects whatever else it says."""
    if isinstance(schema, dict):
        types = schema.get("type", "object")
        if types == "object" or (isinstance(types, list) and "object" in types):
            return {**schema, "type": "object"}
    elif schema:
        return {"type": "object"}
    place = f"response_format.{place}"
    raise InvalidRequest(place, f"{place}: a json_object needs a schema of objects; use the type json_schema")


def _unwrapped(given: Any) -> Any:
    """The schema inside OpenAI's wrapper {"name", "schema", "strict"}, or the schema itself."""
    if isinstance(given, Mapping) and "schema" in given and not {"type", "properties", "$ref", "anyOf"} & set(given):
        return given["schema"]
    return given


def _shown(task: Content, written: Written) -> str:
    """The grammar's text as its user knows it: GBNF as it was given."""
    if task.response is not None and task.response[0] == "grammar" and not task.tools:
        return task.response[1]
    return written.source
