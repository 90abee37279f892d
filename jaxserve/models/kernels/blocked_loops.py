"""Attention over a paged cache in plain JAX: online softmax over blocks of keys (`softmax.py`).

Two computations share one block loop. Rows with a single new token (decode) run together, [R, K, G, H]. Rows with more
(prefill) are cut into items of `QUERY_BLOCK` queries, and a loop with a dynamic trip count takes one item after the
other, so padding costs nothing. Latent attention is the case of one key/value head whose value is part of its key.

Reproducibility: a token's result has the same bits in a decode row as in any prefill chunk, with any neighbours, in any
bucket. For that, query and key blocks are aligned at absolute position 0 and have fixed sizes.

Pages may hold anything, NaN too, where no position of the row is: masked scores are replaced and masked values zeroed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxserve.models.kernels.attention_backend import LayerBatch
from jaxserve.models.kernels.softmax import KEY_BLOCK, Keys, Running, begin, finish, fold
from jaxserve.models.metadata import AttentionMeta

QUERY_BLOCK = 32
"""Queries per prefill item at most."""
_FEWEST_QUERIES = 4
"""Queries per prefill item at least, where the group allows it."""
_QUERY_ROWS = 128
"""Query vectors per key/value head and item at most."""


class Work(NamedTuple):
    """What the layers of a page group share of a step."""

    items: jax.Array
    """Number of items of prefill, the first of W."""
    rows_W: jax.Array
    """Row of each item."""
    begins_W: jax.Array
    """Its first position, a multiple of the query block; the row's new tokens may begin later or end earlier."""
    decodes_R: jax.Array
    """Position of the row's query where it has one new token, else -1."""
    decodes_T: jax.Array
    """Whether the token is such a query."""


class TokenWork(NamedTuple):
    """The same where each token is a row of its own."""

    positions_T: jax.Array
    """-1 for padding."""


def list_work(meta: AttentionMeta, block: int) -> Work:
    """Cut the rows with several new tokens into items of at most `block` queries, and find the rows with one."""
    starts_R = meta.kv_lens - meta.q_lens
    first_item_R = starts_R // block
    items_R = jnp.where(meta.q_lens > 1, (meta.kv_lens + block - 1) // block - first_item_R, 0)
    ends_R = jnp.cumsum(items_R)
    tokens, rows = meta.rows_T.shape[0], meta.kv_lens.shape[0]
    item_W = jnp.arange(tokens // block + 2 * min(rows, tokens // 2), dtype=jnp.int32)
    row_W = jnp.minimum(jnp.sum(item_W[:, None] >= ends_R, axis=1, dtype=jnp.int32), rows - 1)
    single_R = meta.q_lens == 1
    return Work(
        items=ends_R[-1],
        rows_W=row_W,
        begins_W=(first_item_R[row_W] + item_W - (ends_R[row_W] - items_R[row_W])) * block,
        decodes_R=jnp.where(single_R, meta.kv_lens - 1, -1),
        decodes_T=single_R[meta.rows_T] & meta.valid_T,
    )


def query_block(group: int, tokens: int) -> int:
    """Queries per prefill item: a power of two, so that items stay aligned with key blocks and pages.

    In steps of few tokens an item has no more: rows with drafts then cost what their queries cost, not 32 queries
    (a row of 4 new tokens behind 500: an eighth).

    Args:
        group: query heads of a key/value head.
        tokens: T.
    """
    block = QUERY_BLOCK
    while block > 1 and (block * group > _QUERY_ROWS or (block > tokens and block > _FEWEST_QUERIES)):
        block //= 2
    return block


@dataclass(frozen=True)
class _Options:
    scale: float
    window: int | None = None
    softcap: float | None = None
    value_dim: int | None = None
    """Leading dimensions of a cached row that are its value; None = keys and values lie side by side."""


class _Queries(NamedTuple):
    """X independent rows of M query vectors per key/value head."""

    q_XKMH: jax.Array
    positions_XM: jax.Array
    """Position of each query, -1 where there is none."""
    first_X: jax.Array
    """Lowest key position that any query of the row sees."""
    last_X: jax.Array
    """Highest key position that any query of the row sees, -1 for a row without queries."""
    pages_XP: jax.Array
    """Pages of the row in the whole cache."""
    lasts_XM: jax.Array | None = None
    """Highest key position that each query sees; None = its own."""


def attend(
    q_TNH: Float[Array, "T N H"],
    kv: Float[Array, "SP page twice_K H"],
    batch: LayerBatch,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks_N: Float[Array, " N"] | None = None,
) -> Float[Array, "T N H"]:
    """Grouped-query attention over `kv` [S*P, page, 2K, H], the step's keys and values already written."""
    tokens, heads, head_dim = q_TNH.shape
    kv_heads = kv.shape[2] // 2
    q_TKGH = q_TNH.reshape(tokens, kv_heads, heads // kv_heads, head_dim)
    sinks_KG = None if sinks_N is None else sinks_N.astype(jnp.float32).reshape(kv_heads, -1)
    out = _attend(q_TKGH, kv, batch, sinks_KG, _Options(scale, window, softcap))
    return out.reshape(tokens, heads, head_dim)


def attend_latent(
    q_TNC: Float[Array, "T N C"], latent: Float[Array, "SP page C"], batch: LayerBatch, *, scale: float, value_dim: int
) -> Float[Array, "T N V"]:
    """Attention over cached latents [S*P, page, C], the step's rows already written."""
    return _attend(q_TNC[:, None], latent, batch, None, _Options(scale, value_dim=value_dim))[:, 0]


def _attend(
    q_TKGH: jax.Array, kv: jax.Array, batch: LayerBatch, sinks_KG: jax.Array | None, options: _Options
) -> jax.Array:
    """Attention of a step's rows, decoding and others -> [T, K, G, V]."""
    if isinstance(batch.work, TokenWork):
        return _each_token(q_TKGH, kv, batch, sinks_KG, options)
    decoded_TKGV = _decode(q_TKGH, kv, batch, sinks_KG, options)[batch.meta.rows_T]
    out_TKGV: jax.Array | float = 0.0
    if q_TKGH.shape[0] > 1:  # else no row has several new tokens
        out_TKGV = _prefill(q_TKGH, kv, batch, sinks_KG, options)
    return jnp.where(batch.work.decodes_T[:, None, None, None], decoded_TKGV, out_TKGV)


def _each_token(
    q_TKGH: jax.Array, kv: jax.Array, batch: LayerBatch, sinks_KG: jax.Array | None, options: _Options
) -> jax.Array:
    """Every token with the keys of its row, in a loop whose end is that of the page table -> [T, K, G, V]."""
    meta, position_T = batch.meta, batch.work.positions_T
    last_T = position_T if meta.lasts_T is None else jnp.where(position_T < 0, -1, meta.lasts_T)
    q_TKMH, sinks_KM = _in_company(q_TKGH, sinks_KG)
    shape = (position_T.shape[0], q_TKMH.shape[2])
    queries = _Queries(
        q_TKMH,
        jnp.broadcast_to(position_T[:, None], shape),
        _first_key(position_T, options.window),
        last_T,
        meta.page_table[meta.rows_T] + batch.first_page,
        None if meta.lasts_T is None else jnp.broadcast_to(last_T[:, None], shape),
    )
    trips = -(-meta.page_table.shape[1] * meta.page_size // KEY_BLOCK)
    if options.window is not None:  # what is seen begins anywhere in a block
        trips += 1
        if meta.lasts_T is None:
            trips = min(trips, (options.window + KEY_BLOCK - 2) // KEY_BLOCK + 1)
    return _block_loop(queries, kv, sinks_KM, options, trips)[:, :, : q_TKGH.shape[2]].astype(q_TKGH.dtype)


def _in_company(q_XKGH: jax.Array, sinks_KG: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Queries and sinks of groups with padding behind.

    XLA:CPU computes one row, and a rest of rows beyond a multiple of four, by other routines, with other bits.
    """
    group = q_XKGH.shape[2]
    spare = 1 if group == 1 else -group % 4 if group > 2 else 0
    q_XKMH = jnp.pad(q_XKGH, ((0, 0), (0, 0), (0, spare), (0, 0)))
    return q_XKMH, None if sinks_KG is None else jnp.pad(sinks_KG, ((0, 0), (0, spare)))


def _decode(
    q_TKGH: jax.Array, kv: jax.Array, batch: LayerBatch, sinks_KG: jax.Array | None, options: _Options
) -> jax.Array:
    """All rows with one new token at once -> [R, K, G, V]; other rows are zero."""
    group, position_R = q_TKGH.shape[2], batch.work.decodes_R
    q_RKGH = q_TKGH[jnp.minimum(batch.meta.cu_q_lens[:-1], q_TKGH.shape[0] - 1)]
    q_RKMH, sinks_KM = _in_company(q_RKGH, sinks_KG)
    queries = _Queries(
        q_RKMH,
        jnp.broadcast_to(position_R[:, None], (position_R.shape[0], q_RKMH.shape[2])),
        _first_key(position_R, options.window),
        position_R,
        batch.meta.page_table + batch.first_page,
    )
    return _block_loop(queries, kv, sinks_KM, options)[:, :, :group].astype(q_TKGH.dtype)


def _prefill(
    q_TKGH: jax.Array, kv: jax.Array, batch: LayerBatch, sinks_KG: jax.Array | None, options: _Options
) -> jax.Array:
    """Rows with several new tokens, item after item -> [T, K, G, V]; other tokens are zero."""
    tokens, kv_heads, group, head_dim = q_TKGH.shape
    block, meta, work = query_block(group, tokens), batch.meta, batch.work
    value_dim = options.value_dim or head_dim
    margin = ((block, block), (0, 0), (0, 0), (0, 0))
    padded_q = jnp.pad(q_TKGH, margin)
    sinks_KM = None if sinks_KG is None else jnp.tile(sinks_KG, (1, block))
    size = (block, kv_heads, group, head_dim)

    def item(index: jax.Array, out: jax.Array) -> jax.Array:
        row, first = work.rows_W[index], work.begins_W[index]
        start, end = meta.kv_lens[row] - meta.q_lens[row], meta.kv_lens[row]
        positions = first + jnp.arange(block)
        ours = (positions >= start) & (positions < end)
        where = (meta.cu_q_lens[row] + first - start + block, 0, 0, 0)
        q_QKGH = lax.dynamic_slice(padded_q, where, size)
        lasts = last = None
        if meta.lasts_T is not None:
            seen = lax.dynamic_slice(jnp.pad(meta.lasts_T, (block, block)), where[:1], (block,))
            lasts = jnp.where(ours, seen, -1)
            last = jnp.max(lasts)
        queries = _Queries(
            q_QKGH.transpose(1, 0, 2, 3).reshape(1, kv_heads, block * group, head_dim),
            jnp.repeat(jnp.where(ours, positions, -1), group)[None],
            _first_key(jnp.maximum(first, start), options.window)[None],
            jnp.minimum(first + block, end)[None] - 1 if last is None else last[None],
            (meta.page_table[row] + batch.first_page)[None],
            None if lasts is None else jnp.repeat(lasts, group)[None],
        )
        o_KQGV = _block_loop(queries, kv, sinks_KM, options).reshape(kv_heads, block, group, value_dim)
        new = o_KQGV.transpose(1, 0, 2, 3).astype(out.dtype)
        kept = lax.dynamic_slice(out, where, new.shape)
        return lax.dynamic_update_slice(out, jnp.where(ours[:, None, None, None], new, kept), where)

    empty = jnp.zeros((*padded_q.shape[:-1], value_dim), q_TKGH.dtype)
    padded_out: jax.Array = lax.fori_loop(0, work.items, item, empty)
    return padded_out[block : block + tokens]


def _first_key(position: jax.Array, window: int | None) -> jax.Array:
    """Lowest key position that a query at `position` sees."""
    return jnp.zeros_like(position) if window is None else jnp.maximum(position - window + 1, 0)


def _block_loop(
    queries: _Queries,
    kv: jax.Array,
    sinks_KM: jax.Array | None,
    options: _Options,
    fixed_trips: int | None = None,
) -> jax.Array:
    """Run the online softmax over the blocks each row needs -> float32 [X, K, M, V]; zero where there is no query."""
    first_block_X = queries.first_X // KEY_BLOCK
    trips = jnp.max(queries.last_X // KEY_BLOCK - first_block_X + 1) if fixed_trips is None else fixed_trips

    def step(index: jax.Array, state: Running) -> Running:
        keys = _keys(first_block_X + index, queries, kv, options)
        return fold(state, queries.q_XKMH, keys, scale=options.scale, softcap=options.softcap)

    *shape, head_dim = queries.q_XKMH.shape
    start = begin((shape[0], shape[1], shape[2]), options.value_dim or head_dim, sinks_KM)
    return finish(lax.fori_loop(0, trips, step, start))


def _keys(block_X: jax.Array, queries: _Queries, kv: jax.Array, options: _Options) -> Keys:
    """One block of keys and values per row, and who sees them."""
    positions_XB = block_X[:, None] * KEY_BLOCK + jnp.arange(KEY_BLOCK)
    seen_XB = (positions_XB >= queries.first_X[:, None]) & (positions_XB <= queries.last_X[:, None])
    lasts_XM = queries.positions_XM if queries.lasts_XM is None else queries.lasts_XM
    allowed = positions_XB[:, None, :] <= lasts_XM[:, :, None]
    if options.window is not None:
        allowed &= positions_XB[:, None, :] > queries.positions_XM[:, :, None] - options.window
    chosen = _gather(block_X, queries.pages_XP, kv)
    if options.value_dim is not None:
        k_XKBH = chosen[:, None]
        return Keys(k_XKBH, k_XKBH[..., : options.value_dim], seen_XB, allowed)
    rows, block, twice_heads, head_dim = chosen.shape
    pairs = chosen.reshape(rows, block, twice_heads // 2, 2, head_dim).transpose(3, 0, 2, 1, 4)
    return Keys(pairs[0], pairs[1], seen_XB, allowed)


def _gather(block_X: jax.Array, pages_XP: jax.Array, kv: jax.Array) -> jax.Array:
    """What the cache holds of one block per row, [X, KEY_BLOCK, ...]."""
    per_block = KEY_BLOCK // kv.shape[1]
    columns = (block_X[:, None] * per_block + jnp.arange(per_block)) % pages_XP.shape[1]
    pages = jnp.take_along_axis(pages_XP, columns, axis=1)
    chosen = lax.platform_dependent(kv, pages, tpu=_take_tokens, default=_take_pages)
    block: jax.Array = chosen.reshape(block_X.shape[0], KEY_BLOCK, *kv.shape[2:])
    return block


def _take_pages(kv: jax.Array, pages: jax.Array) -> jax.Array:
    """Whole pages at a time: 15 to 20% faster than by token on CPU (measured)."""
    return kv[pages]


def _take_tokens(kv: jax.Array, pages: jax.Array) -> jax.Array:
    """Token by token: the layout that writing uses, so that XLA:TPU leaves the cache where it is."""
    page = kv.shape[1]
    tokens = pages[..., None] * page + jnp.arange(page)
    return kv.reshape(-1, *kv.shape[2:])[tokens]
