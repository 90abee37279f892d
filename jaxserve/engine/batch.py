"""A `Plan` becomes one packed int32 buffer of a static shape: one host-to-device copy per step.

Layout for a bucket of T tokens and R rows: tokens[T], cu_q_lens[R+1], kv_lens[R], a page table [R, columns] for each
page group, rows[R, NUM_COLUMNS] (slots, positions and sampling knobs; floats bit-cast). `Layout` is the only place
that knows the offsets, on the host and on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import jax
import numpy as np
import numpy.typing as npt

from jaxserve.config import EngineConfig
from jaxserve.engine.types import Plan, PlannedRow
from jaxserve.sampling.columns import NUM_COLUMNS

Int32Array = npt.NDArray[np.int32]
_A = TypeVar("_A", Int32Array, jax.Array)


@dataclass(frozen=True)
class Views(Generic[_A]):
    """The parts of a packed buffer."""

    tokens_T: _A
    """Token ids; -1 = what the row's slot sampled last; 0 beyond the packed ones."""
    cu_q_lens: _A
    """[R+1] cumulative tokens per row; unused rows repeat the total."""
    kv_lens_R: _A
    """Positions of each row's sequence after this step; 0 for unused rows."""
    page_tables: tuple[_A, ...]
    """[R, columns] for each page group: block b's page in column b % columns, 0 where the step needs none."""
    rows_RC: _A
    """[R, NUM_COLUMNS] as `sampling.columns` defines them."""


@dataclass(frozen=True)
class Layout:
    """Static shape of one bucket's buffer."""

    tokens: int
    """T."""
    rows: int
    """R."""
    columns: tuple[int, ...]
    """Width of each page group's table."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """int32 words of each part, in order."""
        tables = (self.rows * columns for columns in self.columns)
        return (self.tokens, self.rows + 1, self.rows, *tables, self.rows * NUM_COLUMNS)

    @property
    def size(self) -> int:
        """int32 words of the whole buffer."""
        return sum(self.sizes)

    def split(self, buffer: _A) -> Views[_A]:
        """Views into a host buffer, or slices of a traced one."""
        parts, start = [], 0
        for size in self.sizes:
            parts.append(buffer[start : start + size])
            start += size
        tables = parts[3:-1]
        for group, columns in enumerate(self.columns):
            tables[group] = tables[group].reshape(self.rows, columns)
        return Views(parts[0], parts[1], parts[2], tuple(tables), parts[-1].reshape(self.rows, NUM_COLUMNS))


def layouts(config: EngineConfig) -> tuple[Layout, ...]:
    """One layout for each token bucket, ascending."""
    return tuple(Layout(size, config.row_bucket(size), config.table_columns) for size in config.token_buckets)


def choose_layout(plan: Plan, ascending: tuple[Layout, ...]) -> Layout:
    """The smallest bucket that holds the plan."""
    for layout in ascending:
        if plan.num_tokens <= layout.tokens and len(plan.rows) <= layout.rows:
            return layout
    raise ValueError(f"a plan of {plan.num_tokens} tokens in {len(plan.rows)} rows exceeds every bucket")


def build(plan: Plan, layout: Layout, pack_sampling: Callable[[Int32Array, PlannedRow, int], None]) -> Int32Array:
    """Packs a plan. Always a new buffer: on CPU the device may read the host's memory while the step runs.

    Args:
        plan: at most `layout.tokens` tokens in at most `layout.rows` rows.
        layout: the bucket.
        pack_sampling: writes one sampling row's knobs into its [NUM_COLUMNS] part, given the index of the row's last
            token in the batch; rows that do not sample stay zero.
    """
    buffer = np.zeros(layout.size, np.int32)
    views = layout.split(buffer)
    start = 0
    for index, row in enumerate(plan.rows):
        views.tokens_T[start : start + row.count] = row.tokens
        start += row.count
        views.cu_q_lens[index + 1] = start
        views.kv_lens_R[index] = row.start + row.count
        if row.samples:
            pack_sampling(views.rows_RC[index], row, start - 1)
    views.cu_q_lens[len(plan.rows) + 1 :] = start
    _write_tables(plan, layout, buffer.data)
    return buffer


def _write_tables(plan: Plan, layout: Layout, words: memoryview) -> None:
    """Block b's page goes to column b % C; the blocks of a step are at most C, so they wrap once at most.

    Through a memoryview, which takes an array of integers in a fifth of the time that numpy takes.
    """
    start = layout.tokens + layout.rows + 1 + layout.rows
    for group, columns in enumerate(layout.columns):
        for index, row in enumerate(plan.rows):
            first, pages = row.pages[group]
            line, column = start + index * columns, first % columns
            beyond = column + len(pages) - columns
            if beyond <= 0:
                words[line + column : line + column + len(pages)] = pages
            else:
                words[line + column : line + columns] = pages[:-beyond]
                words[line : line + beyond] = pages[-beyond:]
        start += layout.rows * columns
