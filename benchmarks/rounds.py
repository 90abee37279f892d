"""The parent's side: one process per contender, taking turns so that a slow minute of the machine hits all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoint import Shape

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"jaxserve": "jaxserve_engine", "transformers": "transformers_torch", "llama.cpp": "llama_cpp_engine"}
PAUSE = 0.3
"""Seconds between turns, in which the threads of the one before go to sleep."""


@dataclass(frozen=True)
class Workload:
    """What each contender is asked to do, for each number of sequences."""

    sequences: tuple[int, ...] = (1, 4, 16)
    prompt: int = 128
    """Tokens in each prompt."""
    new: int = 64
    """Tokens decoded for each sequence after the first."""
    rounds: int = 5


@dataclass(frozen=True)
class Limits:
    """The machine every contender gets."""

    threads: int = 2
    device: str = "cpu"


@dataclass(frozen=True)
class Speed:
    """Tokens per second over the rounds, all sequences together."""

    median: float
    low: float
    high: float


class Contender:
    """A running worker process."""

    def __init__(self, name: str, python: str, model: Path, limits: Limits) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe nobody reads would fill up
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.contenders.{MODULES[name]}", str(model)],
            cwd=ROOT,
            env=_environment(limits),
            preexec_fn=lambda: _use_cores(limits.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.versions: dict[str, str] = self._read()["ready"]

    def generate(self, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        """Seconds it took, and the tokens."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "new": new}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if [len(tokens) for tokens in answer["tokens"]] != [new] * len(prompts):
            raise RuntimeError(f"{self.name} returned other than {new} tokens for each of {len(prompts)} prompts")
        return answer["seconds"], answer["tokens"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} ended:\n{self._errors.read()[-3000:]}")
        message: dict[str, Any] = json.loads(line)
        return message


def _environment(limits: Limits) -> dict[str, str]:
    threads = str(limits.threads)
    chosen = {"BENCH_THREADS": threads, "BENCH_DEVICE": limits.device, "OMP_NUM_THREADS": threads}
    if limits.device == "cpu":
        chosen["JAX_PLATFORMS"] = "cpu"
    return {**os.environ, **chosen, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def _use_cores(count: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


@contextmanager
def start(names: Mapping[str, str], model: Path, limits: Limits) -> Iterator[list[Contender]]:
    """Starts contenders (name -> Python to run it with) one after the other, and ends them."""
    running: list[Contender] = []
    try:
        for name, python in names.items():
            running.append(Contender(name, python, model, limits))
        yield running
    finally:
        for contender in running:
            contender.close()


def available(bench_python: str) -> dict[str, str]:
    """Contenders whose library can be imported, and the Python each runs with."""
    found = {"jaxserve": sys.executable}
    for name, imports in {"transformers": "torch, transformers", "llama.cpp": "llama_cpp, gguf, safetensors"}.items():
        if subprocess.run([bench_python, "-c", f"import {imports}"], capture_output=True, check=False).returncode == 0:
            found[name] = bench_python
    return found


def measure_all(contenders: list[Contender], shape: Shape, work: Workload) -> dict[tuple[str, int], dict[str, Speed]]:
    """Prefill and decode speed for each contender and number of sequences. The first round warms up and is dropped.

    Prefill is the time to one token of every sequence; decode is what `new` further tokens add to it.
    """
    rng = np.random.default_rng(1)
    results = {}
    for sequences in work.sequences:
        samples: dict[str, dict[str, list[float]]] = {one.name: {"prefill": [], "decode": []} for one in contenders}
        for index in range(work.rounds + 1):
            prompts = rng.integers(0, shape.vocab, (2, sequences, work.prompt)).tolist()
            for contender in contenders[:: 1 if index % 2 else -1]:
                speeds = _measure(contender, prompts, work)
                if index > 0:
                    for kind, value in speeds.items():
                        samples[contender.name][kind].append(value)
        for name, kinds in samples.items():
            results[name, sequences] = {kind: _summary(values) for kind, values in kinds.items()}
    return results


def _measure(contender: Contender, prompts: list[list[list[int]]], work: Workload) -> dict[str, float]:
    """One turn. The two prompts differ, so that a prefix cache has nothing to find.

    On a disturbed machine the shorter generation can take longer; decoding then counts as a fifth of the longer one,
    which shows as an outlier instead of an absurd speed.
    """
    time.sleep(PAUSE)
    short, _ = contender.generate(prompts[0], 1)
    time.sleep(PAUSE)
    long, _ = contender.generate(prompts[1], 1 + work.new)
    count = len(prompts[0])
    return {"prefill": count * work.prompt / short, "decode": count * work.new / max(long - short, 0.2 * long)}


def _summary(values: list[float]) -> Speed:
    return Speed(statistics.median(values), min(values), max(values))


def agreement(contenders: list[Contender], shape: Shape) -> dict[str, bool]:
    """Whether each contender continues one prompt greedily as the first one does: the same model was measured."""
    prompt = np.random.default_rng(2).integers(0, shape.vocab, (1, 24)).tolist()
    outputs = {contender.name: contender.generate(prompt, 8)[1] for contender in contenders}
    reference = outputs[contenders[0].name]
    return {name: tokens == reference for name, tokens in outputs.items()}
