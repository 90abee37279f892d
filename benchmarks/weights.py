"""Decode step and memory of one model with its weights held in different formats, side by side in one process.

    python -m benchmarks.weights [--rows 4 16] [--rounds 9] [--json FILE]

The model is a random Llama of 107M parameters (width 1024, 8 layers, V 8,192: the projections are 84% of it, as in
large models). Every round times one step of every format in turn; ratios are medians over the rounds of the float32
step's time over the format's time in the same round, so that other load on the machine cancels. Weights that are
dequantised while they are loaded are float32 (or bfloat16) in memory: their step is that of those rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import machine, revision
from jaxserve import models
from jaxserve.models.config import AttentionSpec, LayerSpec, MlpSpec, ModelConfig, RopeSpec, WeightFormat

FORMATS: dict[str, tuple[str, WeightFormat | None]] = {
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    "int8": ("float32", WeightFormat("int8")),
    "fp8, a scale per row": ("float32", WeightFormat("e4m3")),
    "fp8, blocks of 128": ("float32", WeightFormat("e4m3", 128)),
    "fp4, blocks of 32": ("float32", WeightFormat("e2m1", 32, "e8m0")),
}
WIDTH, LAYERS, VOCAB, PAGE, CONTEXT = 1024, 8, 8192, 16, 128


def config_with(weights: WeightFormat | None) -> ModelConfig:
    """The model, its projections held in this format."""
    attention = AttentionSpec(16, 4, 64, 64**-0.5, RopeSpec(64, 10000.0))
    layer = LayerSpec(attention, MlpSpec(2816), weights=weights)
    return ModelConfig("llama", VOCAB, WIDTH, (layer,) * LAYERS, 1e-5, 2048)


def prepare(dtype: str, weights: WeightFormat | None, rows: int) -> tuple[Callable[[], None], dict[str, float]]:
    """One decode step of `rows` sequences of `CONTEXT` tokens, compiled, and megabytes of memory."""
    model = models.random_model(config_with(weights), dtype=dtype)
    pages = CONTEXT // PAGE
    cache = models.init_cache(
        models.cache_spec(model.config, num_pages=rows * pages + 1, page_size=PAGE, dtype=dtype, mesh=model.mesh)
    )
    batch = (
        np.arange(rows, dtype=np.int32),
        np.arange(rows + 1, dtype=np.int32),
        np.full(rows, CONTEXT, np.int32),
        (np.arange(rows * pages, dtype=np.int32).reshape(rows, pages) + 1,),
    )
    step = jax.jit(partial(_step, model.graphdef), donate_argnums=1).lower(model.leaves, cache, *batch).compile()

    def run() -> None:
        nonlocal cache
        logits, cache = step(model.leaves, cache, *batch)
        np.asarray(logits)

    run()
    memory = {"weights_mb": sum(leaf.nbytes for leaf in model.leaves) / 1e6}
    analysis = step.memory_analysis()
    return run, memory | {"temporaries_mb": analysis.temp_size_in_bytes / 1e6 if analysis is not None else 0.0}


def _step(graphdef: Any, leaves: Any, cache: Any, ids: Any, cu: Any, lens: Any, tables: Any) -> Any:
    meta = models.StepMeta.from_rows(cu, lens, tables, ids.shape[0], PAGE)
    out = models.forward(graphdef, leaves, ids, cache, meta, jnp.arange(ids.shape[0]))
    return out.logits_NV, out.cache


def measure(rows: int, rounds: int) -> list[dict[str, Any]]:
    """One record per format."""
    steps = {name: prepare(dtype, weights, rows) for name, (dtype, weights) in FORMATS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    order, rng = list(steps), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(order)  # what runs before has an effect
        for name in order:
            run, _ = steps[name]
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    records = []
    for name, (_, memory) in steps.items():
        ratios = [base / own for base, own in zip(times["float32"], times[name], strict=True)]
        record = {
            "format": name,
            "rows": rows,
            "ms": round(statistics.median(times[name]) * 1e3, 2),
            "low_ms": round(min(times[name]) * 1e3, 2),
            "speed_to_float32": round(statistics.median(ratios), 3),
            **{key: round(value, 1) for key, value in memory.items()},
        }
        records.append(record)
        print(
            f"rows {rows:3} {name:22} {record['ms']:8.2f} ms (lowest {record['low_ms']:7.2f})  "
            f"{record['speed_to_float32']:5.2f} x float32  weights {record['weights_mb']:6.1f} MB, "
            f"temporaries {record['temporaries_mb']:5.1f} MB",
            flush=True,
        )
    return records


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Decode step and memory by weight format.")
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 16, 256])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", default="", help="also write the records there")
    options = parser.parse_args()
    load = os.getloadavg()
    records = [record for rows in options.rows for record in measure(rows, options.rounds)]
    if options.json:
        result = {"revision": revision(), "machine": machine(), "load_average": load, "records": records}
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
