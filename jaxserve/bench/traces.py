"""Traces of real traffic: lengths and arrival times, of other people's servers.

Two published forms are read: lines of JSON with `timestamp` (milliseconds), `input_length`, `output_length` and
`hash_ids`, the ids of the prompt's blocks of 512 tokens (Mooncake, arXiv:2407.00079); and CSV with TIMESTAMP,
ContextTokens and GeneratedTokens (Azure's public dataset of LLM inference, arXiv:2311.18677), which tells nothing of
what prompts have in common. Neither holds any text.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from jaxserve.bench.load import Ask, Block
from jaxserve.errors import JaxserveError

BLOCK = 512
"""Tokens of what one of `hash_ids` stands for."""


class BadTrace(JaxserveError):
    """A file that isn't a trace, or not one of these forms."""


def read_trace(path: Path, requests: int | None = None) -> list[Ask]:
    """The first requests of a trace; the first of them arrives at 0.

    Raises:
        BadTrace: the file can't be read as one; the sentence names the line.
        OSError: it can't be opened.
    """
    read = _READERS.get(path.suffix)
    if read is None:
        raise BadTrace(f"{path}: a trace is a .jsonl or a .csv file")
    with path.open(encoding="utf-8") as file:
        asks = list(islice(_checked(path, read(file)), requests))
    if not asks:
        raise BadTrace(f"{path}: there is no request in this trace")
    return asks


def _checked(path: Path, asks: Iterable[Ask]) -> Iterator[Ask]:
    found, first, number = iter(asks), None, 0
    while True:
        number += 1
        try:
            ask = next(found)
        except StopIteration:
            return
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadTrace(f"{path}: request {number} can't be read: {error!r}") from None
        first = ask.at or 0.0 if first is None else first
        yield Ask(ask.prompt, ask.output, max(0.0, (ask.at or 0.0) - first))


def _jsonl(file: TextIO) -> Iterator[Ask]:
    for index, line in enumerate(filter(str.strip, file)):
        record = json.loads(line)
        yield Ask(tuple(_blocks(record, index)), max(1, int(record["output_length"])), record["timestamp"] / 1000)


def _blocks(record: Mapping[str, Any], index: int) -> Iterator[Block]:
    left = max(1, int(record["input_length"]))
    for name in record.get("hash_ids", ()):
        if left > 0:
            yield Block(f"hash {name}", min(BLOCK, left))
        left -= BLOCK
    if left > 0:
        yield Block(f"own {index}", left)


def _csv(file: TextIO) -> Iterator[Ask]:
    for index, row in enumerate(csv.DictReader(file)):
        # Seven digits of a second; Python reads six.
        at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
        own = Block(f"own {index}", max(1, int(row["ContextTokens"])))
        yield Ask((own,), max(1, int(row["GeneratedTokens"])), at)


_READERS: Mapping[str, Callable[[TextIO], Iterator[Ask]]] = {".jsonl": _jsonl, ".csv": _csv}
