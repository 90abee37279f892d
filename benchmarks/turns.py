"""The worker's side of a benchmark: load once, then measure when it is this contender's turn.

One JSON object a line. First the worker prints `{"ready": {versions}}`; then for each `{"prompts": [[ids]], "new": n}`
it reads, it prints `{"seconds": s, "tokens": [[ids]]}`; it ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

Generate = Callable[[list[list[int]], int], list[list[int]]]
"""Greedy continuations of exactly `new` tokens for prompts of equal length, all run together."""


def take_turns(load: Callable[[str], tuple[Generate, dict[str, str]]]) -> None:
    """Runs a contender over stdin and stdout. Whatever the engine prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    generate, versions = load(sys.argv[1])
    _answer(answers, {"ready": versions})
    for line in sys.stdin:
        turn = json.loads(line)
        begin = time.perf_counter()
        tokens = generate(turn["prompts"], turn["new"])
        _answer(answers, {"seconds": time.perf_counter() - begin, "tokens": tokens})


def _answer(file: TextIO, message: dict[str, object]) -> None:
    print(json.dumps(message), file=file, flush=True)
