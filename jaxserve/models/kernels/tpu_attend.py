"""Attention over paged keys and values on TPU, in one kernel for rows that decode and for items of prefill.

A task is a row that decodes or an item of prefill. The kernel takes one after the other; of each it streams blocks of
keys and values from HBM, of the next task's first block while it computes the last of this one, so that HBM never
waits for the end of a task. Blocks are aligned at position 0 and folded in order: a query's result depends on its own
sequence only.

The grid's first step takes all rows that decode, whose queries fit into VMEM together; the others take one item each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxserve.models.kernels.tpu_work import LANES, TILE, Lanes, Tasks

_MASKED = -1e30
_UNROLLED_HEADS = 8
_VMEM = 96 << 20


@dataclass(frozen=True)
class Form:
    """Static sizes of the kernel."""

    kv_heads: int
    group: int
    """Query heads of a key/value head."""
    lanes: Lanes
    page: int
    columns: int
    """Of the page table: a ring."""
    keys: int
    """Keys of a block."""
    queries: int
    """Queries of an item of prefill."""
    scale: float
    window: int | None
    softcap: float | None

    @property
    def pages(self) -> int:
        """Pages of a block."""
        return self.keys // self.page


def attend(
    form: Form,
    tasks: Tasks,
    page_table: jax.Array,
    first_page: jax.Array | int,
    q_RNH: jax.Array,
    q_TNH: jax.Array,
    sinks_KM: jax.Array | None,
    pages: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Attend to every task's queries.

    Args:
        form: static sizes.
        tasks: what there is to do.
        page_table: int32 [R, C].
        first_page: of the layer.
        q_RNH: query of each row that decodes, as wide as a key.
        q_TNH: all queries, with as many rows behind as an item has.
        sinks_KM: logit of each of an item's M = queries x group vectors that joins the softmax without a value.
        pages: [S*P, K, page, W].
        interpret: without a TPU, slowly.

    Returns:
        [R, N, V] of the rows that decode and [T, N, V] of the items, in the dtype of the queries; undefined where
        there is no query.
    """
    rows, heads, key = q_RNH.shape
    value, dtype, queries = form.lanes.value, q_RNH.dtype, form.queries
    vectors = queries * form.group
    first = jnp.asarray(first_page, jnp.int32).reshape(1)

    def at_item(step: jax.Array, counts: Any, rows: Any, first: Any, lengths: Any, tokens: Any, *_: Any) -> Any:
        last = tokens.shape[0] - 1
        return tokens[jnp.minimum(counts[0] + jnp.maximum(step - 1, 0), last)], 0, 0

    whole = pl.BlockSpec(memory_space=pltpu.VMEM)
    out: tuple[jax.Array, jax.Array] = pl.pallas_call(
        partial(_body, form, sinks_KM is not None),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=7,
            grid=(1 + tasks.counts[1] - tasks.counts[0],),
            in_specs=[
                whole,
                whole,
                pl.BlockSpec((pl.Element(queries), pl.Element(heads), pl.Element(key)), at_item),
                pl.BlockSpec(memory_space=pl.ANY),
            ],
            out_specs=(whole, pl.BlockSpec(memory_space=pl.ANY)),
            scratch_shapes=[
                pltpu.VMEM((2, form.kv_heads, form.keys, form.lanes.width), pages.dtype),
                pltpu.SemaphoreType.DMA((2,)),
                pltpu.SMEM((1,), jnp.int32),
                pltpu.VMEM((form.kv_heads, vectors, LANES), jnp.float32),
                pltpu.VMEM((form.kv_heads, vectors, LANES), jnp.float32),
                pltpu.VMEM((form.kv_heads, vectors, value), jnp.float32),
                pltpu.VMEM((form.kv_heads, vectors, key), dtype),
                pltpu.VMEM((queries, heads, value), dtype),
                pltpu.SemaphoreType.DMA,
            ],
        ),
        out_shape=(
            jax.ShapeDtypeStruct((rows, heads, value), dtype),
            jax.ShapeDtypeStruct((*q_TNH.shape[:2], value), dtype),
        ),
        interpret=interpret,
        name="paged_attention",
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=_VMEM, disable_bounds_checks=True
        ),
    )(
        tasks.counts,
        tasks.rows_W,
        tasks.first_W,
        tasks.lengths_W,
        tasks.tokens_W,
        page_table.reshape(-1),
        first,
        _wide_sinks(sinks_KM),
        q_RNH,
        q_TNH,
        pages,
    )
    return out


def _wide_sinks(sinks_KM: jax.Array | None) -> jax.Array:
    if sinks_KM is None:
        return jnp.zeros((1, 8, LANES), jnp.float32)
    return jnp.broadcast_to(sinks_KM.astype(jnp.float32)[..., None], (*sinks_KM.shape, LANES))


@dataclass(frozen=True)
class _Kernel:
    """The references of a running kernel, and the steps that its tasks share."""

    form: Form
    has_sinks: bool
    counts: Any
    rows: Any
    first: Any
    lengths: Any
    table: Any
    first_page: Any
    sinks: Any
    pages: Any
    blocks: Any
    here: Any
    slot: Any
    peak: Any
    total: Any
    values: Any
    queries: Any
    """[K, M, H]: of the task at hand."""

    def begin(self, task: jax.Array) -> jax.Array:
        """Lowest position that any query of a task sees."""
        window = self.form.window
        first: jax.Array = self.first[task]
        return jnp.int32(0) if window is None else jnp.maximum(first - window + 1, 0)

    def end(self, task: jax.Array) -> jax.Array:
        """Positions up to its last query."""
        end: jax.Array = self.first[task] + self.lengths[task]
        return end

    def page_range(self, task: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pages of a block, counted within it, that any query of the task sees."""
        form, start = self.form, block * self.form.keys
        low = jnp.maximum(self.begin(task) - start, 0) // form.page
        high = (jnp.minimum(self.end(task) - start, form.keys) + form.page - 1) // form.page
        return low, high

    def _column(self, block: jax.Array) -> jax.Array:
        """Where the pages of a block begin in the table; only tables of windows are rings."""
        column = block * self.form.pages
        if self.form.window is not None:
            column = lax.rem(column, self.form.columns)
        return column

    def _copy(self, task: jax.Array, column: jax.Array, slot: jax.Array, number: Any) -> Any:
        form, column = self.form, column + number
        if form.window is not None:
            column = jnp.where(column < form.columns, column, lax.rem(column, form.columns))
        page = self.first_page[0] + self.table[self.rows[task] * form.columns + column]
        begin = number * form.page
        place = pl.ds(begin if isinstance(begin, int) else pl.multiple_of(begin, form.page), form.page)
        return pltpu.make_async_copy(self.pages.at[page], self.blocks.at[slot, :, place, :], self.here.at[slot])

    def fetch(self, task: jax.Array, block: jax.Array, slot: jax.Array) -> None:
        """Start to read a block."""
        low, high = self.page_range(task, block)
        column = self._column(block)
        full = (low == 0) & (high == self.form.pages)

        @pl.when(full)
        def _whole() -> None:
            for number in range(self.form.pages):
                self._copy(task, column, slot, number).start()

        @pl.when(jnp.logical_not(full))
        def _parts() -> None:
            lax.fori_loop(low, high, lambda number, _: self._copy(task, column, slot, number).start(), None)

    def wait(self, task: jax.Array, block: jax.Array, slot: jax.Array) -> None:
        """Wait until it is here."""
        low, high = self.page_range(task, block)
        full = (low == 0) & (high == self.form.pages)

        @pl.when(full)
        def _whole() -> None:
            pltpu.make_async_copy(self.blocks.at[slot], self.blocks.at[slot], self.here.at[slot]).wait()

        @pl.when(jnp.logical_not(full))
        def _parts() -> None:
            zero = jnp.int32(0)
            lax.fori_loop(low, high, lambda number, _: self._copy(task, zero, slot, number).wait(), None)

    def clear_tail(self, task: jax.Array, block: jax.Array, slot: jax.Array) -> None:
        """Zero what the last page holds behind the last position: a masked weight times NaN would be NaN."""
        form = self.form
        end = self.end(task) - block * form.keys
        last = (jnp.minimum(end, form.keys) + form.page - 1) // form.page * form.page

        def tile(number: jax.Array, _: None) -> None:
            place = pl.ds(pl.multiple_of(number * TILE, TILE), TILE)
            index = number * TILE + lax.broadcasted_iota(jnp.int32, (TILE, form.lanes.width), 0)
            for head in range(form.kv_heads):
                old = self.blocks[slot, head, place, :].astype(jnp.float32)
                self.blocks[slot, head, place, :] = jnp.where(index < end, old, 0.0).astype(self.blocks.dtype)

        lax.fori_loop(end // TILE, last // TILE, tile, None)

    def start(self, vectors: int) -> None:
        """The state before any key."""
        for head in range(self.form.kv_heads):
            place = (head, slice(0, vectors))
            if self.has_sinks:
                self.peak[place], self.total[place] = self.sinks[place], jnp.ones((vectors, LANES), jnp.float32)
            else:
                self.peak[place] = jnp.full((vectors, LANES), _MASKED, jnp.float32)
                self.total[place] = jnp.zeros((vectors, LANES), jnp.float32)
            self.values[place] = jnp.zeros((vectors, self.form.lanes.value), jnp.float32)

    def run(self, task: jax.Array, q_QNH: jax.Array, store: Any) -> None:
        """All blocks of a task; `store` gets float32 [Q, G, V] of each head."""
        form, queries = self.form, q_QNH.shape[0]
        vectors = queries * form.group
        for head in range(form.kv_heads):
            own = q_QNH[:, head * form.group : (head + 1) * form.group].reshape(vectors, form.lanes.key)
            self.queries[head, :vectors] = own.astype(self.queries.dtype)
        begin = self.begin(task) // form.keys
        end = (self.end(task) + form.keys - 1) // form.keys
        self.start(vectors)

        def step(block: jax.Array, _: None) -> None:
            slot = self.slot[0]
            last = block + 1 == end
            following = jnp.where(last, task + 1, task)

            @pl.when(following < self.counts[1])
            def _prefetch() -> None:
                known = jnp.minimum(following, self.rows.shape[0] - 1)
                self.fetch(known, jnp.where(last, self.begin(known) // form.keys, block + 1), 1 - slot)

            self.wait(task, block, slot)

            @pl.when(last)
            def _tail() -> None:
                self.clear_tail(task, block, slot)

            self.fold_heads(task, block, slot, queries)
            self.slot[0] = 1 - slot

        lax.fori_loop(begin, end, step, None)
        for head in range(form.kv_heads):
            place = (head, slice(0, vectors))
            total = self.total[place][:, :1]
            out = self.values[place] / jnp.where(total == 0.0, 1.0, total)
            store(head, out.reshape(queries, form.group, form.lanes.value))

    def fold_heads(self, task: jax.Array, block: jax.Array, slot: jax.Array, queries: int) -> None:
        """One block, for every head."""
        allowed = self.allowed(task, block, queries)
        if self.form.kv_heads <= _UNROLLED_HEADS:
            for head in range(self.form.kv_heads):
                self.fold(head, slot, queries, allowed)
        else:
            lax.fori_loop(0, self.form.kv_heads, lambda head, _: self.fold(head, slot, queries, allowed), None)

    def allowed(self, task: jax.Array, block: jax.Array, queries: int) -> jax.Array:
        """Who sees whom: [1 or M, keys]."""
        form = self.form
        shape = (1 if queries == 1 else queries * form.group, form.keys)
        key = block * form.keys + lax.broadcasted_iota(jnp.int32, shape, 1)
        query = self.first[task] + lax.broadcasted_iota(jnp.int32, shape, 0) // form.group
        seen: jax.Array = key <= query
        return seen if form.window is None else seen & (key > query - form.window)

    def fold(self, head: Any, slot: jax.Array, queries: int, allowed: jax.Array) -> None:
        """One block of one head into the online softmax (Milakov & Gimelshein 2018)."""
        form, lanes = self.form, self.form.lanes
        place = (head, slice(0, queries * form.group))
        scores = _dot(self.queries[place], self.blocks[slot, head, :, : lanes.key], 1) * form.scale
        if form.softcap is not None:
            scores = form.softcap * jnp.tanh(scores / form.softcap)
        scores = jnp.where(allowed, scores, _MASKED)
        before = self.peak[place]
        peak = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        weights = jnp.where(allowed, jnp.exp(scores - peak[:, :1]), 0.0)
        decay = jnp.exp(before - peak)
        self.peak[place] = peak
        self.total[place] = self.total[place] * decay + jnp.sum(weights, axis=1, keepdims=True)
        value = self.blocks[slot, head, :, lanes.value_from : lanes.value_from + lanes.value]
        self.values[place] = self.values[place] * decay[:, :1] + _dot(weights.astype(value.dtype), value, 0)


def _dot(left: jax.Array, right: jax.Array, contracted: int) -> jax.Array:
    """float32; float32 operands in full precision."""
    precision = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    dimensions = (((1,), (contracted,)), ((), ()))
    product: jax.Array = lax.dot_general(
        left, right, dimensions, precision=precision, preferred_element_type=jnp.float32
    )
    return product


def _body(
    form: Form,
    has_sinks: bool,
    counts: Any,
    rows: Any,
    first: Any,
    lengths: Any,
    tokens: Any,
    table: Any,
    first_page: Any,
    sinks: Any,
    q_rows: Any,
    q_item: Any,
    pages: Any,
    out_rows: Any,
    out_tokens: Any,
    blocks: Any,
    here: Any,
    slot: Any,
    peak: Any,
    total: Any,
    values: Any,
    queries: Any,
    out_item: Any,
    gone: Any,
) -> None:
    kernel = _Kernel(
        form, has_sinks, counts, rows, first, lengths, table, first_page, sinks, pages, blocks, here, slot, peak, total,
        values, queries,
    )  # fmt: skip
    step = pl.program_id(0)

    @pl.when(step == 0)
    def _decode() -> None:
        blocks[...] = jnp.zeros_like(blocks)  # what is not fetched is masked, but must be no NaN
        slot[0] = 0

        @pl.when(counts[1] > 0)
        def _start() -> None:
            kernel.fetch(jnp.int32(0), kernel.begin(jnp.int32(0)) // form.keys, jnp.int32(0))

        lax.fori_loop(0, counts[0], lambda task, _: _decode_row(kernel, task, q_rows, out_rows), None)

    @pl.when(step > 0)
    def _fill() -> None:
        task = counts[0] + step - 1

        def leaving(task: jax.Array) -> Any:
            # What is behind the item's last query goes along: later items write it anew.
            return pltpu.make_async_copy(out_item, out_tokens.at[pl.ds(tokens[task], form.queries)], gone)

        def store(head: int, out: jax.Array) -> None:
            if head == 0:

                @pl.when(step > 1)
                def _before() -> None:
                    leaving(task - 1).wait()

            out_item[:, head * form.group : (head + 1) * form.group] = out.astype(out_item.dtype)

        kernel.run(task, q_item[...].astype(jnp.float32), store)
        leaving(task).start()

        @pl.when(task + 1 == counts[1])
        def _last() -> None:
            leaving(task).wait()


def _decode_row(kernel: _Kernel, task: jax.Array, q_rows: Any, out_rows: Any) -> None:
    """A row with one query."""
    row = kernel.rows[task]
    outs: list[jax.Array] = []
    kernel.run(task, q_rows[row].astype(jnp.float32)[None], lambda head, out: outs.append(out[0]))
    out_rows[row] = jnp.concatenate(outs, axis=0).astype(out_rows.dtype)
