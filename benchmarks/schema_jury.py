"""Judges published schemas in worker processes: does a grammar take their valid instances, and no others?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from jaxserve.errors import InvalidRequest
from jaxserve.text import load_tokenizer
from jaxserve.text.formats.lark import Lark
from jaxserve.text.grammar import trial
from jaxserve.text.grammar.llg import Vocabulary, compile_lark, vocabulary_of
from jaxserve.text.grammar.refusals import refusal_of
from jaxserve.text.isolation import Limits, Overrun, Workers
from jaxserve.text.schemas.reading import load_schema
from jaxserve.text.tokenizers.tokenizer import Tokenizer

LIMITS = Limits(cpu_seconds=60, wall_seconds=300, memory_bytes=2 * 2**30)
"""Of reading the instances as well; what compiles longer than the server lets it is counted as refused."""


@dataclass
class Verdict:
    """What became of one schema."""

    name: str
    kind: str
    seconds: float = 0.0
    """Of processor time, to write the grammar and to compile it."""
    why: str = ""
    refused: list[int] = field(default_factory=list)
    """Valid instances that the grammar doesn't take."""
    reordered: list[int] = field(default_factory=list)
    """Valid instances that it takes with their keys in the schema's order only."""
    accepted: list[int] = field(default_factory=list)
    """Invalid instances that it takes."""


@dataclass(frozen=True)
class Judging:
    """What the worker processes do."""

    directory: Path
    tokenizer: Path

    def prepare(self) -> Callable[[str, bool], Verdict]:
        """See `Task`."""
        ours = load_tokenizer(self.tokenizer)
        encode = partial(_encode, ours)
        tokenizer = _vocabulary(ours).build(encode)
        compile_lark(tokenizer, 'start: "a"')
        return partial(_judge, self.directory, tokenizer, encode)


def _encode(tokenizer: Tokenizer, text: bytes) -> list[int]:
    return tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False, parse_special=False)


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    stops = tokenizer.eos_ids or (tokenizer.vocab_size - 1,)
    return vocabulary_of(tokenizer, tokenizer.vocab_size, markers=(), stops=stops)


def _judge(
    directory: Path, tokenizer: LLTokenizer, encode: Callable[[bytes], list[int]], name: str, is_open: bool
) -> Verdict:
    case = json.loads((directory / name).read_text("utf-8"))
    begun = time.process_time()
    try:
        matcher = _compile(tokenizer, case["schema"], is_open=is_open)
    except InvalidRequest as refusal:
        return Verdict(name, "refused", time.process_time() - begun, refusal.message.partition(": ")[2])
    seconds = time.process_time() - begun
    if seconds > trial.LIMITS.cpu_seconds:
        return Verdict(name, "refused", seconds, "it takes too long")
    verdict = Verdict(name, "passing", seconds)
    orders = [list(names) for names in _orders(case["schema"])]
    for index, test in enumerate(case.get("tests", ())):
        takes = partial(_takes, matcher, encode)
        if not test["valid"]:
            verdict.accepted += [index] if takes(test["data"]) or takes(_ordered(test["data"], orders)) else []
        elif not takes(test["data"]):
            (verdict.reordered if takes(_ordered(test["data"], orders)) else verdict.refused).append(index)
    for kind, found in (("other order", verdict.reordered), ("valid refused", verdict.refused)):
        verdict.kind = kind if found else verdict.kind
    verdict.kind = "invalid accepted" if verdict.accepted else verdict.kind
    return verdict


def _orders(schema: Any) -> Iterator[Iterable[str]]:
    """The orders of keys that a schema gives."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema["properties"]
        for part in schema.values():
            yield from _orders(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _orders(part)


def _ordered(value: Any, orders: list[list[str]]) -> Any:
    """A value with the keys of each object in the order that names most of them."""
    if isinstance(value, list):
        return [_ordered(item, orders) for item in value]
    if not isinstance(value, dict):
        return value
    best = max(orders, key=lambda names: len(value.keys() & set(names)), default=[])
    places = {name: index for index, name in enumerate(best)}
    keys = sorted(value, key=lambda key: places.get(key, len(places)))
    return {key: _ordered(value[key], orders) for key in keys}


def _compile(tokenizer: LLTokenizer, schema: Any, *, is_open: bool) -> LLMatcher:
    lark = Lark({}, open_objects=is_open)
    source = lark.finish(lark.schema(load_schema(schema, "schema"), "schema"))
    matcher = compile_lark(tokenizer, source)
    if matcher.is_error():
        raise InvalidRequest("schema", f"schema: not supported: {refusal_of(matcher.get_error())}")
    return matcher


def _takes(matcher: LLMatcher, encode: Callable[[bytes], list[int]], value: Any) -> bool:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    reader = matcher.deep_copy()
    return bool(reader.consume_tokens(encode(text)) and reader.is_accepting())


class Jury:
    """Judges schemas in worker processes."""

    def __init__(self, directory: Path, tokenizer: Path, threads: int) -> None:
        self._workers = Workers(Judging(directory, tokenizer), LIMITS, size=threads, patience=3600)
        self._threads = threads

    def all(self, names: Iterable[str], *, is_open: bool) -> dict[str, Verdict]:
        """The verdicts by file name."""
        with ThreadPoolExecutor(self._threads) as pool:
            return {verdict.name: verdict for verdict in pool.map(partial(self._one, is_open=is_open), names)}

    def close(self) -> None:
        """Ends the workers."""
        self._workers.close()

    def _one(self, name: str, *, is_open: bool) -> Verdict:
        try:
            verdict: Verdict = self._workers.run(name, is_open)
        except Overrun as overrun:
            slow = "seconds" in str(overrun)
            return Verdict(name, "refused" if slow else "crash", why=str(overrun))
        return verdict
