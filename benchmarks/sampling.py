"""The sampling stage's cost beside a decode step of a 135M-parameter float32 model.

    python benchmarks/sampling.py [--vocab 32000 151936] [--batch 1 16 64] [--repeat 20] [--json FILE]

Logits are drawn to look like a language model's: a few likely tokens and a long tail (Zipf-like, with noise). The
decode step is the model's matrix products alone, weights stored [out, in] as the engine stores them: a lower bound of
the real step, so the shares printed are upper bounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxserve.sampling.columns import NUM_COLUMNS
from jaxserve.sampling.packing import pack_bias, pack_history, pack_params, pack_row
from jaxserve.sampling.params import SamplingParams
from jaxserve.sampling.pipeline import sample, write_bias, write_history
from jaxserve.sampling.state import SlotState, init_state

SCENARIOS: dict[str, tuple[SamplingParams, bool]] = {
    "all greedy": (SamplingParams(temperature=0), False),
    "temperature only": (SamplingParams(temperature=0.8), False),
    "top_p .9": (SamplingParams(top_p=0.9), False),
    "top_p .9 + top_k 50": (SamplingParams(top_p=0.9, top_k=50), False),
    "greedy + logprobs": (SamplingParams(temperature=0), True),
    "everything on": (
        SamplingParams(
            temperature=0.9,
            top_k=100,
            top_p=0.95,
            min_p=0.01,
            typical_p=0.9,
            frequency_penalty=0.1,
            presence_penalty=0.1,
            repetition_penalty=1.1,
            logit_bias=((1, 1.0), (2, -1.0)),
        ),
        True,
    ),
}


def logits_like_a_model(batch: int, vocab: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [batch, vocab]: log p falls as 1.2 log rank, plus noise, in random token order."""
    rng = np.random.default_rng(seed)
    rank = np.stack([rng.permutation(vocab) + 1 for _ in range(batch)])
    return (12 - 1.2 * np.log(rank) + rng.normal(scale=0.7, size=rank.shape)).astype(np.float32)


def median_seconds(run: Callable[[], object], repeat: int) -> float:
    """Median wall time of a call that blocks until its result is there, after a first one."""
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def mean_cpu_seconds(run: Callable[[], object], repeat: int) -> float:
    """Mean processor time of a call, all threads: comparable on a busy machine, where wall time is not."""
    run()
    start = time.process_time()
    for _ in range(repeat):
        run()
    return (time.process_time() - start) / repeat


Clock = Callable[[Callable[[], object], int], float]


class Stage:
    """The sampling stage compiled once for a batch and a vocabulary; every scenario runs the same executable."""

    def __init__(self, batch: int, vocab: int) -> None:
        self.batch = batch
        self.history = jax.jit(write_history, donate_argnums=0)
        self.bias = jax.jit(write_bias, donate_argnums=0)
        self.state: SlotState = init_state(batch, vocab)
        self.logits = jnp.asarray(logits_like_a_model(batch, vocab))
        self.mask = jnp.full((batch, -(-vocab // 32)), -1, jnp.int32)
        rows = jnp.zeros((batch, NUM_COLUMNS), jnp.int32)
        # An ahead-of-time executable can't recompile: every scenario runs through this one.
        self.step = jax.jit(sample, donate_argnums=0).lower(self.state, self.logits, rows, self.mask).compile()

    def seconds(self, params: SamplingParams, want_logprobs: bool, repeat: int, clock: Clock) -> float:
        """Seconds of one step in which every row has these parameters; the result is copied to the host."""
        rows = np.zeros((self.batch, NUM_COLUMNS), np.int32)
        constant = pack_params(params, 0, want_logprobs)
        for slot in range(self.batch):
            pack_row(rows[slot], constant, slot, 7, token=slot, fresh=True, grammar=params.top_k == 100)
            for packed in pack_history(slot, range(100), range(50, 150)):
                self.state = self.history(self.state, packed)
            self.state = self.bias(self.state, pack_bias(slot, params))
        device_rows = jnp.asarray(rows)

        def run() -> None:
            self.state, out = self.step(self.state, self.logits, device_rows, self.mask)
            np.asarray(out)

        return clock(run, repeat)


def decode_seconds(batch: int, clock: Clock, repeat: int = 10) -> float:
    """Seconds of the matrix products of one decode step of a 135M float32 model (30 layers, width 576, V 49,152)."""
    D, F, KV, V, L = 576, 1536, 192, 49152, 30
    rng = np.random.default_rng(0)

    def weight(rows: int, columns: int) -> jax.Array:
        return jnp.asarray(rng.normal(scale=0.02, size=(rows, columns)).astype(np.float32))

    layers = [
        (weight(D, D), weight(2 * KV, D), weight(D, D), weight(2 * F, D), weight(D, F)) for _ in range(L)
    ]  # q, k and v, o, gate and up, down
    unembed = weight(V, D)

    def product(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.dot_general(x, w, (((1,), (1,)), ((), ())))

    @jax.jit
    def step(x: jax.Array, layers: Any, unembed: jax.Array) -> jax.Array:
        for q, kv, o, up, down in layers:
            x = x + product(product(x, q) + product(x, kv).sum() * 1e-6, o)
            gate, value = jnp.split(product(x, up), 2, axis=-1)
            x = x + product(jax.nn.silu(gate) * value, down)
        return product(x, unembed)

    x = weight(max(batch, 2), D)
    return clock(lambda: jax.block_until_ready(step(x, layers, unembed)), repeat)


def measure(vocabs: list[int], batches: list[int], repeat: int, clock: Clock) -> list[dict[str, Any]]:
    """One record per vocabulary, batch and scenario: milliseconds, and the share of a decode step."""
    steps = {batch: decode_seconds(batch, clock) for batch in batches}
    records = []
    for vocab in vocabs:
        for batch in batches:
            stage = Stage(batch, vocab)
            for name, (params, want_logprobs) in SCENARIOS.items():
                seconds = stage.seconds(params, want_logprobs, repeat, clock)
                record = {"vocab": vocab, "batch": batch, "scenario": name, "ms": round(seconds * 1e3, 3)}
                record["decode_ms"] = round(steps[batch] * 1e3, 2)
                record["share"] = round(seconds / steps[batch], 4)
                records.append(record)
                print(f"V {vocab:6} B {batch:2} {name:20} {seconds * 1e3:8.2f} ms {record['share']:7.1%}", flush=True)
    return records


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Cost of the sampling stage.")
    parser.add_argument("--vocab", type=int, nargs="+", default=[32000, 151936])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", default="", help="also write the records there")
    parser.add_argument("--cpu-time", action="store_true", help="processor time instead of wall time")
    options = parser.parse_args()
    clock = mean_cpu_seconds if options.cpu_time else median_seconds
    records = measure(options.vocab, options.batch, options.repeat, clock)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(records, file, indent=1)


if __name__ == "__main__":
    main()
