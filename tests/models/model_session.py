"""Runs a model by hand: one sequence in a paged cache, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxserve import models

PAGE = 16


class Session:
    """A model with a cache and two sequences; compiled steps, of at most 64 tokens a row, are kept per shape.

    Page groups with a window have rings of pages, reused as soon as the window has passed them.
    """

    def __init__(
        self, model: models.LoadedModel, pages_per_row: int = 20, options: dict[str, int] | None = None
    ) -> None:
        self.model = model
        windows = models.cache_layout(model.config).windows
        self.columns = [
            pages_per_row if window is None else min(pages_per_row, -(-(window - 1 + 64) // PAGE) + 1)
            for window in windows
        ]
        count = 2 * sum(self.columns)
        self.ids = np.random.default_rng(9).permutation(count) + 1
        self.cache = models.init_cache(
            models.cache_spec(
                model.config,
                num_pages=count + 1,
                page_size=PAGE,
                dtype=model.dtype,
                mesh=model.mesh,
                backends=model.backends,
            )
        )
        self.step = jax.jit(partial(_step, model.graphdef), donate_argnums=1, compiler_options=options)
        self.routing: np.ndarray | None = None

    def pages(self, sequence: int) -> list[np.ndarray]:
        """Page table of sequence 0 or 1 in each page group, in no particular order."""
        parts = np.split(self.ids, np.cumsum(self.columns * 2)[:-1])
        return parts[sequence * len(self.columns) :][: len(self.columns)]

    def run(self, rows: Sequence[tuple[int, int, Sequence[int]]], tokens: int, num_rows: int = 2) -> list[np.ndarray]:
        """One step over rows (sequence, start position, token ids) in a bucket of `tokens` -> logits per row."""
        ids = np.zeros(tokens, np.int32)
        cu = np.zeros(num_rows + 1, np.int32)
        lens = np.zeros(num_rows, np.int32)
        tables = tuple(np.zeros((num_rows, columns), np.int32) for columns in self.columns)
        for row in range(num_rows):
            cu[row + 1] = cu[row]
            if row < len(rows):
                sequence, start, new = rows[row]
                cu[row + 1] += len(new)
                ids[cu[row] : cu[row + 1]] = new
                lens[row] = start + len(new)
                for table, pages in zip(tables, self.pages(sequence), strict=True):
                    table[row] = pages
        logits, self.cache, routing = self.step(self.model.leaves, self.cache, ids, cu, lens, tables)
        out = np.asarray(logits)
        self.routing = None if routing is None else np.asarray(routing)[:, : cu[len(rows)]]
        assert np.isfinite(out).all(), "padding and unused rows must stay finite"
        return [out[cu[row] : cu[row + 1]] for row in range(len(rows))]

    def chunks(
        self, ids: Sequence[int], sizes: Sequence[int], tokens: int, sequence: int = 0, start: int = 0
    ) -> np.ndarray:
        """Feed ids in chunks of these sizes, one step each -> logits of all positions."""
        logits, at = [], 0
        for size in sizes:
            logits += self.run([(sequence, start + at, ids[at : at + size])], tokens)
            at += size
        assert at == len(ids)
        return np.concatenate(logits)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Greedy continuation by decode steps, all in the bucket of 64 tokens."""
        out = [int(self.run([(0, 0, ids)], 64)[0][-1].argmax())]
        while len(out) < count:
            out.append(int(self.run([(0, len(ids) + len(out) - 1, out[-1:])], 64)[0][-1].argmax()))
        return out


def _step(graphdef, leaves, cache, ids, cu_q_lens, kv_lens, page_tables, images=None):  # type: ignore[no-untyped-def]
    meta = models.StepMeta.from_rows(cu_q_lens, kv_lens, page_tables, ids.shape[0], PAGE)
    out = models.forward(graphdef, leaves, ids, cache, meta, jnp.arange(ids.shape[0]), images)
    return out.logits_NV, out.cache, out.routing
