"""One step of a model as a program of its own: forward and the greedy token of each row, nothing of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxserve import models
from jaxserve.config import table_columns
from jaxserve.models.config import ModelConfig

PAGE_SIZE = 16
Step = Callable[..., tuple[dict[str, jax.Array], jax.Array]]
"""(leaves, cache, tokens_T, cu_q_lens, kv_lens, page tables) -> the cache and each row's next token."""


@dataclass(frozen=True)
class Bucket:
    """Static sizes of a step."""

    tokens: int
    rows: int
    context: int
    """Positions that a row's page table has room for."""

    def columns(self, config: ModelConfig) -> tuple[int, ...]:
        """Width of the page table of each page group."""
        return table_columns(models.cache_layout(config).windows, self.context, PAGE_SIZE, self.tokens)


def step_of(graphdef: Any, page_size: int = PAGE_SIZE) -> Step:
    """The step of a model, to be jitted with its second argument donated."""

    def step(
        leaves: list[jax.Array],
        cache: dict[str, jax.Array],
        tokens_T: jax.Array,
        cu_q_lens: jax.Array,
        kv_lens: jax.Array,
        tables: tuple[jax.Array, ...],
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        meta = models.StepMeta.from_rows(cu_q_lens, kv_lens, tables, tokens_T.shape[0], page_size)
        last_R = jnp.maximum(cu_q_lens[1:] - 1, 0)
        out = models.forward(graphdef, leaves, tokens_T, cache, meta, last_R)
        return out.cache, jnp.argmax(out.logits_NV, axis=-1).astype(jnp.int32)

    return step


def abstract_batch(config: ModelConfig, bucket: Bucket, sharding: Any) -> tuple[Any, ...]:
    """Shapes of the last four arguments of a step."""

    def int32(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.int32, sharding=sharding)

    tables = tuple(int32(bucket.rows, columns) for columns in bucket.columns(config))
    return int32(bucket.tokens), int32(bucket.rows + 1), int32(bucket.rows), tables


def random_tables(config: ModelConfig, bucket: Bucket, seed: int = 0) -> tuple[tuple[np.ndarray, ...], int]:
    """Page tables with a page of its own in every column, and how many pages that takes (page 0 included)."""
    columns = bucket.columns(config)
    total = bucket.rows * sum(columns)
    pages = np.random.default_rng(seed).permutation(total).astype(np.int32) + 1
    parts = np.split(pages, np.cumsum([bucket.rows * width for width in columns])[:-1])
    return tuple(part.reshape(bucket.rows, width) for part, width in zip(parts, columns, strict=True)), total + 1
