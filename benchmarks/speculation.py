"""What predictions and grammars' forced text save: one request with and without, in turns, and what neighbours feel.

    python -m benchmarks.speculation MODEL_DIR [--rounds 5] [--results FILE]

Greedy, CPU or whatever jax finds. `edit`: the prediction is the output itself with a tenth of its tokens changed, in
spans that are replaced, inserted or left out. `wrong`, `shuffled`: other text. `json`: an object whose long keys the
grammar forces, with drafts and without. `neighbours`: time between the tokens of four other requests while a fifth has
a prediction or not. Medians of rounds; every output is compared with the one without drafts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import random
import statistics
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from functools import partial
from pathlib import Path

from jaxserve.engine.engine import Engine
from jaxserve.engine.requests import ConstraintFactory, Delta, Request
from jaxserve.engine.runner import Ticket
from jaxserve.options import EngineOptions
from jaxserve.prepared import prepare
from jaxserve.resolve import resolve_model
from jaxserve.sampling.params import SamplingParams
from jaxserve.startup import Started, start
from jaxserve.text.formats import FORMATS, bind
from jaxserve.text.grammar.constraint import ConstraintBuilder
from jaxserve.text.grammar.wish import OutputWish

GREEDY = SamplingParams(temperature=0)
PROMPT = "Write a long story about a lighthouse keeper and the sea."
KEYS = [f"{word}_identifier_of_the_measuring_station" for word in ("primary", "secondary", "tertiary", "regional")]
SCHEMA = {
    "type": "object",
    "properties": {key: {"type": "integer", "minimum": 0, "maximum": 999} for key in KEYS},
    "required": KEYS,
    "additionalProperties": False,
}
OVERLAP = 0.9


def edited(tokens: list[int], overlap: float, rng: random.Random) -> list[int]:
    """A text of which `overlap` is in `tokens`, in order: spans of eight are replaced, inserted or left out."""
    span, out = 8, []
    changed = set(rng.sample(range(len(tokens) // span), round(len(tokens) * (1 - overlap) / span)))
    for part in range(0, len(tokens), span):
        piece = tokens[part : part + span]
        kind = rng.randrange(3) if part // span in changed else None
        other = [rng.choice(tokens) for _ in piece]
        out += {None: piece, 0: other, 1: [*other, *piece], 2: []}[kind]
    return out


def run(engine: Engine[Ticket], requests: list[Request]) -> tuple[dict[str, list[int]], float]:
    """Outputs and seconds."""
    box: queue.SimpleQueue[Delta] = queue.SimpleQueue()
    outputs: dict[str, list[int]] = {request.id: [] for request in requests}
    begin, left = time.perf_counter(), len(requests)
    for request in requests:
        engine.submit(request, box.put)
    while left:
        delta = box.get()
        if delta.error is not None:
            raise delta.error
        outputs[delta.request_id] += delta.token_ids
        left -= delta.finish_reason is not None
    return outputs, time.perf_counter() - begin


class Bench:
    """A started engine and the numbers that come out of it."""

    def __init__(self, started: Started, length: int, rounds: int) -> None:
        self.engine, self.tokenizer = started.engine, started.tokenizer
        self.vocab = started.model_config.vocab_size
        self.length, self.rounds = length, rounds
        self.count = 0
        self.prompt = tuple(self.tokenizer.encode(PROMPT, add_special_tokens=True))

    def request(self, *, prediction: Seq[int] = (), constraint: ConstraintFactory | None = None, salt: int = 0,
                stops: tuple[int, ...] = (), length: int | None = None) -> Request:  # fmt: skip
        """A request of its own name."""
        self.count += 1
        return Request(
            str(self.count),
            (*self.prompt, *([salt] * bool(salt))),
            GREEDY,
            max_tokens=length or self.length,
            prediction=tuple(prediction),
            constraint=constraint,
            stop_token_ids=stops,
        )

    def drafts(self, on: bool) -> None:
        """Lets the engine guess, or not at all."""
        speculation = self.engine._speculation
        if on:
            vars(speculation).pop("propose", None)
        else:
            speculation.propose = lambda sequence, most: None  # type: ignore[method-assign]

    def compare(self, kinds: dict[str, Callable[[], Request]], plain: str) -> dict[str, float]:
        """Median tokens a second of each kind of request, in turns; their outputs must be equal."""
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        truth: list[int] | None = None
        for _ in range(self.rounds + 1):  # the first is not counted
            for kind, make in kinds.items():
                self.drafts(kind != plain)
                request = make()
                outputs, seconds = run(self.engine, [request])
                truth = truth or outputs[request.id]
                if outputs[request.id] != truth:
                    raise SystemExit(f"{kind}: other tokens than without drafts")
                rates[kind].append(len(truth) / seconds)
        self.drafts(True)
        return {kind: statistics.median(values[1:]) for kind, values in rates.items()}

    def predictions(self, rng: random.Random) -> dict[str, float]:
        """`plain`, `right`, `edit` and `wrong`."""
        output = list(run(self.engine, [request := self.request()])[0][request.id])
        texts = {
            "plain": [],
            "right": output,
            "edit": edited(output, OVERLAP, rng),
            "wrong": [rng.randrange(self.vocab) for _ in output],
            "shuffled": rng.sample(output, len(output)),
        }
        return self.compare({kind: partial(self.request, prediction=text) for kind, text in texts.items()}, "plain")

    def forced(self) -> dict[str, float]:
        """`plain` and `json`."""
        builder = ConstraintBuilder(bind(FORMATS["generic"], self.tokenizer, None), vocab_size=self.vocab)
        wish = {"type": "json_schema", "json_schema": {"name": "stations", "schema": SCHEMA}}
        rules = builder.build(OutputWish(wish, chat=False))
        assert rules is not None
        rates = self.compare(
            {kind: lambda: self.request(constraint=rules.make, stops=rules.stop_ids) for kind in ("plain", "json")},
            "plain",
        )
        builder.close()
        return rates

    def neighbours(self, rng: random.Random) -> dict[str, float]:
        """Milliseconds a token of four neighbours beside a fifth request, by what that has; and its tokens a second."""
        output = list(run(self.engine, [request := self.request()])[0][request.id])
        texts = {"none": [], "edit": edited(output, OVERLAP, rng), "wrong": [rng.randrange(self.vocab) for _ in output]}
        found: dict[str, list[float]] = {}
        for _ in range(self.rounds):
            for kind, text in texts.items():
                self.drafts(kind != "none")
                step, rate = self._beside(self.request(prediction=text))
                found.setdefault(f"{kind}: ms a neighbour's token", []).append(step)
                found.setdefault(f"{kind}: tokens/s of the fifth", []).append(rate)
        self.drafts(True)
        return {name: statistics.median(values) for name, values in found.items()}

    def _beside(self, fifth: Request) -> tuple[float, float]:
        """(milliseconds between a neighbour's tokens while the fifth runs, the fifth's tokens a second)."""
        others = [self.request(salt=salt, length=2 * self.length) for salt in (101, 102, 103, 104)]
        box: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        for request in others:
            self.engine.submit(request, box.put)
        begun: set[str] = set()
        while len(begun) < len(others):
            begun.add(box.get().request_id)
        begin, count, own = time.perf_counter(), 0, 0
        self.engine.submit(fifth, box.put)
        while True:
            delta = box.get()
            if delta.request_id != fifth.id:
                count += len(delta.token_ids)
                continue
            own += len(delta.token_ids)
            if delta.finish_reason is not None:
                break
        seconds = time.perf_counter() - begin
        for request in others:
            self.engine.abort(request.id)
        ended = 0
        while ended < len(others):
            ended += box.get().finish_reason is not None
        return 1e3 * seconds * len(others) / count, own / seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.speculation", description=__doc__)
    parser.add_argument("model", help="directory, .gguf file, hub id, smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=400)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    options = EngineOptions(resolve_model(args.model), max_model_len=1024, max_num_batched_tokens=64, kv_memory=1 << 30)
    started = start(prepare(options))
    bench, rng = Bench(started, args.new, args.rounds), random.Random(0)
    found = {
        "command": " ".join(["python -m benchmarks.speculation", args.model.rpartition("/")[2], *sys.argv[2:]]),
        "machine": f"{_cpu()}, {os.cpu_count()} cores",
        "tokens a second": bench.predictions(rng),
        "json": bench.forced(),
        "neighbours": bench.neighbours(rng),
    }
    started.engine.close()
    print(text := json.dumps(found, indent=1))
    if args.results:
        args.results.write_text(text + "\n")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
