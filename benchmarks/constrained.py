"""What constrained requests cost: steps of 16 plain requests, of 16 constrained ones, and of 8 beside 8.

    python -m benchmarks.constrained [--tokenizer DIRECTORY] [--rounds 5] [--tokens 40] [--json FILE]

A random Llama with a vocabulary of 151,936 runs in this process, with random weights and a vocabulary of random words
unless a directory with a real tokenizer is given. All kinds of requests take turns in every round, so that a busy
machine slows all of them; medians over the rounds are shown. The time of a step is the time between two tokens of a
request; processor time, which other processes don't lengthen, is shown beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import random
import shutil
import statistics
import string
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import checkpoint, report
from jaxserve.engine.engine import Engine
from jaxserve.engine.requests import Delta, Request
from jaxserve.engine.runner import Ticket
from jaxserve.options import EngineOptions
from jaxserve.prepared import prepare
from jaxserve.sampling.params import SamplingParams
from jaxserve.startup import start
from jaxserve.text.formats import FORMATS, bind
from jaxserve.text.formats.tools import Tool
from jaxserve.text.grammar.constraint import Constrained, ConstraintBuilder
from jaxserve.text.grammar.wish import OutputWish

VOCAB = 151_936
SPECIALS = ("<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>")
REQUESTS = 16
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
            "required": ["street", "zip"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 500}
FLAT = r'root ::= ([a-z]+ " = " [0-9]+ ";\n")*'
NESTED = r"""
root ::= (term "\n")*
term ::= [a-z]+ | "(" term ([-+*/] term)* ")"
"""


@dataclass(frozen=True)
class Kind:
    """What a constrained request asks for."""

    name: str
    response_format: dict[str, Any] | None = None
    tool_choice: Any = None


KINDS = (
    Kind("json_schema", {"type": "json_schema", "json_schema": PEOPLE}),
    Kind("tools auto, no call", tool_choice="auto"),
    Kind("tools required", tool_choice="required"),
    Kind("GBNF, flat", {"type": "grammar", "grammar": FLAT}),
    Kind("GBNF, recursive", {"type": "grammar", "grammar": NESTED}),
)


@dataclass(frozen=True)
class Steps:
    """One run: milliseconds of a step as its requests see it, and of processor time."""

    wall: float
    processor: float


def write_model(directory: Path, tokenizer: Path | None, hidden: int, layers: int) -> None:
    """A random model and its tokenizer."""
    shape = checkpoint.Shape("constrained", hidden, layers, hidden // 64, hidden // 128, hidden * 3, VOCAB, 512)
    checkpoint.write(shape, directory)
    config = json.loads((directory / "config.json").read_text())
    if tokenizer is not None:
        (directory / "tokenizer.json").unlink()
        (directory / "tokenizer_config.json").unlink()
        for file in tokenizer.iterdir():
            if file.is_file():
                shutil.copy(file, directory)
    else:
        (directory / "tokenizer.json").write_text(json.dumps(random_vocabulary(VOCAB)))
        config["eos_token_id"] = VOCAB - len(SPECIALS)
    (directory / "config.json").write_text(json.dumps(config))


def random_vocabulary(size: int) -> dict[str, Any]:
    """A byte-level BPE of bytes and random words, numbers and punctuation, with the markers of calls and reasoning."""
    rng = random.Random(0)
    described: dict[str, Any] = checkpoint._tokenizer(256)
    tokens: dict[str, int] = described["model"]["vocab"]
    blank = "\u0120"
    kinds = [
        [*string.ascii_letters, *[blank] * 8],  # words, some behind a blank
        [*string.digits],
        [*'"{}[]:,.()<>/=+-*_;', blank],
    ]
    parts = [list(kind) for kind in kinds]
    merges: list[str] = []
    while len(tokens) < size - len(SPECIALS):
        kind = rng.choices((0, 1, 2), (30, 1, 4))[0]
        left, right = rng.choice(parts[kind]), rng.choice(parts[kind])
        if kind != 2 and right.startswith(blank):
            continue
        if left + right not in tokens and len(left + right) <= (3 if kind == 1 else 14):
            tokens[left + right] = len(tokens)
            parts[kind].append(left + right)
            merges.append(f"{left} {right}")
    described["model"]["merges"] = merges
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    described["added_tokens"] = [
        {"id": len(tokens) + index, "content": text, **flags} for index, text in enumerate(SPECIALS)
    ]
    return described


def constraint_of(kind: Kind, builder: ConstraintBuilder) -> Constrained:
    """The constraint of one request."""
    place = {"type": "function", "function": {"name": "add_people", "parameters": {"type": "object"}}}
    place["function"]["parameters"] = {  # type: ignore[index]
        "type": "object",
        "properties": {"people": PEOPLE},
        "required": ["people"],
        "additionalProperties": False,
    }
    tools = Tool.parse([place]) if kind.tool_choice else ()
    built = builder.build(
        OutputWish(
            kind.response_format,
            tools=tools,
            forced=kind.tool_choice == "required",
            ignore_eos=kind.tool_choice != "auto",
        )
    )
    if built is None:
        raise ValueError(f"{kind.name} constrains nothing")
    return built


def run(engine: Engine[Ticket], plain: int, constrained: int, built: Constrained | None, tokens: int) -> Steps:
    """The median time between two tokens of the plain requests (of the constrained ones where there are no plain)."""
    box: queue.SimpleQueue[tuple[float, Delta]] = queue.SimpleQueue()
    for number in range(plain + constrained):
        follows = built.make if built is not None and number >= plain else None
        request = Request(
            f"{time.monotonic_ns()}-{number}",
            tuple(range(1000 + 7 * number, 1016 + 7 * number)),
            SamplingParams(temperature=1.0, seed=number),
            max_tokens=tokens,
            constraint=follows,
        )
        engine.submit(request, lambda delta: box.put((time.perf_counter(), delta)))
    arrivals: dict[str, list[float]] = defaultdict(list)
    left, used = plain + constrained, 0.0
    while left:
        at, delta = box.get(timeout=600)
        if delta.error is not None:
            raise delta.error
        arrivals[delta.request_id].append(at)
        left -= delta.finish_reason is not None
        if not used and len(arrivals) == plain + constrained:
            used, first_step = time.process_time(), engine.stats().steps
    processor = (time.process_time() - used) / max(engine.stats().steps - first_step, 1)
    seen = {name: times for name, times in arrivals.items() if not plain or int(name.split("-")[1]) < plain}
    gaps = [b - a for times in seen.values() for a, b in itertools.pairwise(times[2:])]
    return Steps(statistics.median(gaps) * 1e3, processor * 1e3)


def measure(engine: Engine[Ticket], builder: ConstraintBuilder, rounds: int, tokens: int) -> list[dict[str, Any]]:
    """One record for each kind, with medians over the rounds, in milliseconds."""
    built = {kind.name: constraint_of(kind, builder) for kind in KINDS}
    runs: dict[tuple[str, int], list[Steps]] = defaultdict(list)
    half = REQUESTS // 2
    for round_number in range(rounds + 1):
        for kind in KINDS:
            for constrained in (0, half, REQUESTS):
                steps = run(engine, REQUESTS - constrained, constrained, built[kind.name], tokens)
                if round_number:  # the first one warms up
                    runs[kind.name, constrained].append(steps)
    records = []
    for kind in KINDS:
        record: dict[str, Any] = {"kind": kind.name}
        for clock in ("wall", "processor"):
            plain, mixed, all_of_them = (
                statistics.median(getattr(steps, clock) for steps in runs[kind.name, constrained])
                for constrained in (0, half, REQUESTS)
            )
            record[clock] = {
                "16_plain_ms": round(plain, 2),
                "8_plain_beside_8_ms": round(mixed, 2),
                "16_constrained_ms": round(all_of_them, 2),
                "slowdown_of_plain": round(mixed / plain - 1, 4),
                "slowdown_all_constrained": round(all_of_them / plain - 1, 4),
            }
        records.append(record)
    return records


def show(records: list[dict[str, Any]]) -> None:
    """A table."""
    print(f"{'':21} {'clock':10} {'16 plain':>10} {'8 + 8':>10} {'16 constr.':>10}   slowdown of plain rows")
    for record in records:
        for clock in ("wall", "processor"):
            r = record[clock]
            print(
                f"{record['kind']:21} {clock:10} {r['16_plain_ms']:8.1f}ms {r['8_plain_beside_8_ms']:8.1f}ms "
                f"{r['16_constrained_ms']:8.1f}ms   {r['slowdown_of_plain']:+7.1%}"
                f"   (16 constrained: {r['slowdown_all_constrained']:+.1%})"
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.constrained", description="Cost of constrained requests.")
    parser.add_argument("--tokenizer", type=Path, help="directory of a real tokenizer of at most 151,936 tokens")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--json", type=Path, help="also write the result there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_model(directory, options.tokenizer, options.hidden, options.layers)
        engine = EngineOptions(
            directory, max_num_seqs=REQUESTS, max_model_len=256, token_buckets=(16, 256), prefix_caching=False
        )
        started = start(prepare(engine))
        begin = time.perf_counter()
        builder = ConstraintBuilder(bind(FORMATS["qwen3"], started.tokenizer, None), vocab_size=VOCAB)
        print(f"{started.tokenizer.vocab_size} tokens, read for grammars in {time.perf_counter() - begin:.1f} s")
        records = measure(started.engine, builder, options.rounds, options.tokens)
        started.engine.close()
    show(records)
    if options.json:
        head = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "revision": report.revision(),
            "machine": report.machine(),
            "device": started.device,
            "parameters": started.num_parameters,
            "vocab": VOCAB,
            "tokenizer": options.tokenizer.name if options.tokenizer else "random words",
            "rounds": options.rounds,
            "kinds": records,
        }
        options.json.write_text(json.dumps(head, indent=1) + "\n")


if __name__ == "__main__":
    main()
