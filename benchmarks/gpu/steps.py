"""Whole steps of a model with random weights, drawn on the device, as shares of the device's ceilings.

What a step needs is counted for dense models: all weights and the rows' keys and values, or the layers' products. With
experts the shares therefore say too much, and only their times compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.hlo import Program
from benchmarks.gpu.program import PAGE_SIZE, Bucket, abstract_batch, random_tables, step_of
from benchmarks.gpu.shapes import model_config
from jaxserve import models
from jaxserve.engine.programs import OPTIONS
from jaxserve.models.kernels.choice import choose_backends
from jaxserve.models.kernels.target import Target

_SMALLEST = 8


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prefill: int
    steps: int
    """Decode steps per measurement."""


def measure_steps(
    name: str,
    layers: int | None,
    sizes: Sizes,
    attention: str,
    matmul: str,
    ceilings: Mapping[str, float],
    *,
    tiny: bool,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Decode by batch and context, and prefill; shares where the ceilings are known."""
    config = model_config(name, layers, tiny=tiny)
    mesh = models.make_mesh((1, 1, 1))
    backends = choose_backends(attention, matmul, Target.of(mesh.devices.flat[0]), config.layers)
    model = models.random_model(config, mesh=mesh, dtype="bfloat16", backends=backends)
    run = Run(model, ceilings)
    found: dict[str, Any] = {"layers": len(config.layers)}
    for context in sizes.contexts:
        for batch in sizes.batches:
            found[f"decode {batch} x {context}"] = result = run.decode(batch, context, sizes.steps)
            note(f"{name} {attention} {matmul} decode {batch} x {context}: {result}")
    found[f"prefill {sizes.prefill}"] = result = run.prefill(sizes.prefill)
    note(f"{name} {attention} {matmul} prefill {sizes.prefill}: {result}")
    return found


@dataclass(frozen=True)
class Run:
    """A model on the device."""

    model: models.LoadedModel
    ceilings: Mapping[str, float]

    def decode(self, batch: int, context: int, steps: int) -> dict[str, float]:
        """Steps whose tokens never leave the device; each reads the weights once and every row's keys and values."""
        rows = max(batch, _SMALLEST)
        bucket = Bucket(rows, rows, context + 2 * steps + PAGE_SIZE)
        step, cache, tables, compiled = self._prepare(bucket)
        cu = np.minimum(np.arange(rows + 1, dtype=np.int32), batch)
        lens, tokens = np.where(np.arange(rows) < batch, context, 0).astype(np.int32), np.zeros(rows, np.int32)
        elapsed = 0.0
        for _ in range(2):  # the first round warms up
            started = time.perf_counter()
            for _ in range(steps):
                cache, tokens = step(self.model.leaves, cache, tokens, cu, lens, tables)
                lens = np.where(lens > 0, lens + 1, 0).astype(np.int32)
            jax.block_until_ready(tokens)
            elapsed = (time.perf_counter() - started) / steps
        needed = self._weight_bytes + batch * context * self._bytes_per_position()
        return self._shares(elapsed, needed, "copy") | {"tokens_per_second": batch / elapsed, **compiled}

    def prefill(self, tokens: int) -> dict[str, float]:
        """One prompt at once; operations of the layers' products and of causal attention."""
        bucket = Bucket(tokens, _SMALLEST, tokens + PAGE_SIZE)
        step, cache, tables, compiled = self._prepare(bucket)
        cu, lens = np.full(_SMALLEST + 1, tokens, np.int32), np.zeros(_SMALLEST, np.int32)
        cu[0], lens[0] = 0, tokens
        ids, found = np.arange(tokens, dtype=np.int32) % self.model.config.vocab_size, []
        for _ in range(4):
            started = time.perf_counter()
            cache, out = step(self.model.leaves, cache, ids, cu, lens, tables)
            jax.block_until_ready(out)
            found.append(time.perf_counter() - started)
        heads = sum(layer.attention.num_heads * layer.attention.head_dim for layer in self.model.config.layers)
        products = (self._weight_bytes - self._table_bytes) * tokens  # two bytes a weight, two operations a token
        operations = products + 2 * heads * tokens * (tokens + 1)
        return self._shares(min(found[1:]), operations, "matmul") | {
            "tokens_per_second": tokens / min(found[1:]),
            **compiled,
        }

    def _prepare(self, bucket: Bucket) -> tuple[Any, dict[str, jax.Array], Any, dict[str, float]]:
        """The compiled step, a cache, page tables, and what compiling told."""
        config, model = self.model.config, self.model
        tables, pages = random_tables(config, bucket)
        sizes = {"num_pages": pages, "page_size": PAGE_SIZE, "dtype": "bfloat16"}
        cache = models.init_cache(models.cache_spec(config, **sizes, mesh=model.mesh, backends=model.backends))  # type: ignore[arg-type]
        started = time.perf_counter()
        with jax.set_mesh(model.mesh):
            lowered = jax.jit(step_of(model.graphdef), donate_argnums=1).lower(
                model.leaves, cache, *abstract_batch(config, bucket, jax.sharding.NamedSharding(model.mesh, jax.P()))
            )
            step = lowered.compile(compiler_options=OPTIONS)
        report = Program(step.as_text() or "").report()
        told = {"compile_seconds": time.perf_counter() - started, "kernels": report.kernels}
        return step, cache, tables, told | {"unknown_loops": report.unknown_loops}

    def _shares(self, elapsed: float, needed: float, ceiling: str) -> dict[str, float]:
        rate = self.ceilings.get(ceiling)
        return {"seconds": elapsed} | ({} if rate is None else {"share": needed / elapsed / rate})

    @property
    def _weight_bytes(self) -> int:
        """Of all weights but the embedding table."""
        table = 0 if self.model.config.tie_embeddings else self._table_bytes
        return sum(leaf.nbytes for leaf in self.model.leaves) - table

    @property
    def _table_bytes(self) -> int:
        """Of the embedding table, and of the output projection."""
        return 2 * self.model.config.vocab_size * self.model.config.hidden_size

    def _bytes_per_position(self) -> int:
        """Keys and values of one position in all layers."""
        return sum(4 * layer.attention.num_kv_heads * layer.attention.head_dim for layer in self.model.config.layers)
