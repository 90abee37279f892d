"""The universal attention backend: plain JAX, online softmax over blocks of keys (Milakov & Gimelshein 2018).

Two computations share one block loop. Rows with a single new token (decode) run together, [R, K, G, H]. Rows with more
(prefill) are cut into items of `QUERY_BLOCK` queries, and a loop with a dynamic trip count takes one item after the
other, so padding costs nothing.

Reproducibility: a token's result has the same bits in a decode row as in any prefill chunk, with any neighbours, in any
bucket. For that, query and key blocks are aligned at absolute position 0 and have fixed sizes, every product contracts
the last axis of both operands with at least two query rows (XLA:CPU then computes rows independently of their number;
measured), and a block that is wholly masked leaves the running state as it was, bit for bit.

Pages may hold anything, NaN too, where no position of the row is: masked scores are replaced and masked values zeroed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxserve.models.metadata import AttentionMeta
from jaxserve.models.reductions import row_sum

KEY_BLOCK = 128
"""Positions per step of the online softmax; pages must divide it."""
QUERY_BLOCK = 32
"""Queries per prefill item at most."""
_QUERY_ROWS = 128
"""Query vectors per key/value head and item at most."""
_MASKED = -1e30


@dataclass(frozen=True)
class _Options:
    scale: float
    window: int | None
    softcap: float | None


class _Running(NamedTuple):
    """State of the online softmax, float32: maximum and sum [X, K, M, 1], weighted values [X, K, M, H]."""

    peak: jax.Array
    total: jax.Array
    values: jax.Array


class _Queries(NamedTuple):
    """X independent rows of M query vectors per key/value head."""

    q_XKMH: jax.Array
    positions_XM: jax.Array
    """Position of each query, -1 where there is none."""
    first_X: jax.Array
    """Lowest key position that any query of the row sees."""
    last_X: jax.Array
    """Highest query position of the row, -1 for a row without queries."""
    pages_XP: jax.Array
    """Pages of the row in the whole cache."""


def write_kv(
    kv: jax.Array, k_TKH: jax.Array, v_TKH: jax.Array, meta: AttentionMeta, first_page: jax.Array | int
) -> jax.Array:
    """Put each token's key and value into its page (in place where `kv` is donated); see `backend.WriteKV`."""
    tokens, kv_heads, head_dim = k_TKH.shape
    rows = jnp.stack([k_TKH, v_TKH], axis=2).reshape(tokens, 2 * kv_heads, head_dim).astype(kv.dtype)
    page = kv.shape[1]
    where_T = (meta.write_pages_T + first_page) * page + meta.write_offsets_T
    # Over token rows, as `_gather` reads on TPU: one layout for both, or XLA:TPU copies the cache in every layer.
    return kv.reshape(-1, 2 * kv_heads, head_dim).at[where_T].set(rows).reshape(kv.shape)


def attend(
    q_TNH: jax.Array,
    kv: jax.Array,
    meta: AttentionMeta,
    first_page: jax.Array | int,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Attention of one layer; see `backend.Attend`.

    Raises:
        ValueError: the page size does not divide `KEY_BLOCK`.
    """
    page, kv_heads = kv.shape[1], kv.shape[2] // 2
    if KEY_BLOCK % page:
        raise ValueError(f"page size {page} must divide {KEY_BLOCK}")
    tokens, heads, head_dim = q_TNH.shape
    options = _Options(scale, window, softcap)
    q_TKGH = q_TNH.reshape(tokens, kv_heads, heads // kv_heads, head_dim)
    sinks_KG = None if sinks_N is None else sinks_N.astype(jnp.float32).reshape(kv_heads, -1)
    pages_RP = meta.page_table + first_page
    out_TKGH = _prefill(q_TKGH, kv, meta, pages_RP, sinks_KG, options)
    decoded_RKGH = _decode(q_TKGH, kv, meta, pages_RP, sinks_KG, options)
    single_T = (meta.q_lens == 1)[meta.rows_T] & meta.valid_T
    out_TKGH = jnp.where(single_T[:, None, None, None], decoded_RKGH[meta.rows_T], out_TKGH)
    return out_TKGH.reshape(tokens, heads, head_dim)


def _decode(
    q_TKGH: jax.Array,
    kv: jax.Array,
    meta: AttentionMeta,
    pages_RP: jax.Array,
    sinks_KG: jax.Array | None,
    options: _Options,
) -> jax.Array:
    """All rows with one new token at once -> [R, K, G, H]; other rows are zero."""
    group = q_TKGH.shape[2]
    q_RKMH = q_TKGH[jnp.minimum(meta.cu_q_lens[:-1], q_TKGH.shape[0] - 1)]
    position_R = jnp.where(meta.q_lens == 1, meta.kv_lens - 1, -1)
    # XLA:CPU computes one row, and a rest of rows beyond a multiple of four, by other routines, with other bits.
    spare = 1 if group == 1 else -group % 4 if group > 2 else 0
    q_RKMH = jnp.pad(q_RKMH, ((0, 0), (0, 0), (0, spare), (0, 0)))
    queries = _Queries(
        q_RKMH,
        jnp.broadcast_to(position_R[:, None], (position_R.shape[0], q_RKMH.shape[2])),
        _first_key(position_R, options.window),
        position_R,
        pages_RP,
    )
    sinks_KM = None if sinks_KG is None else jnp.pad(sinks_KG, ((0, 0), (0, spare)))
    return _block_loop(queries, kv, sinks_KM, options)[:, :, :group].astype(q_TKGH.dtype)


def _prefill(
    q_TKGH: jax.Array,
    kv: jax.Array,
    meta: AttentionMeta,
    pages_RP: jax.Array,
    sinks_KG: jax.Array | None,
    options: _Options,
) -> jax.Array:
    """Rows with several new tokens, item after item -> [T, K, G, H]; other tokens are zero."""
    tokens, kv_heads, group, head_dim = q_TKGH.shape
    block = query_block(group)
    starts_R = meta.kv_lens - meta.q_lens
    first_item_R = starts_R // block
    items_R = jnp.where(meta.q_lens > 1, (meta.kv_lens + block - 1) // block - first_item_R, 0)
    ends_R = jnp.cumsum(items_R)
    margin = ((block, block), (0, 0), (0, 0), (0, 0))
    padded_q = jnp.pad(q_TKGH, margin)
    sinks_KM = None if sinks_KG is None else jnp.tile(sinks_KG, (1, block))
    size = (block, kv_heads, group, head_dim)

    def item(index: jax.Array, out: jax.Array) -> jax.Array:
        row = jnp.sum(index >= ends_R)
        begin = (first_item_R[row] + index - (ends_R[row] - items_R[row])) * block
        positions = begin + jnp.arange(block)
        ours = (positions >= starts_R[row]) & (positions < meta.kv_lens[row])
        where = (meta.cu_q_lens[row] + begin - starts_R[row] + block, 0, 0, 0)
        q_QKGH = lax.dynamic_slice(padded_q, where, size)
        last = jnp.minimum(begin + block, meta.kv_lens[row]) - 1
        queries = _Queries(
            q_QKGH.transpose(1, 0, 2, 3).reshape(1, kv_heads, block * group, head_dim),
            jnp.repeat(jnp.where(ours, positions, -1), group)[None],
            _first_key(jnp.maximum(begin, starts_R[row]), options.window)[None],
            last[None],
            pages_RP[row][None],
        )
        o_KQGH = _block_loop(queries, kv, sinks_KM, options).reshape(kv_heads, block, group, head_dim)
        new = o_KQGH.transpose(1, 0, 2, 3).astype(out.dtype)
        kept = lax.dynamic_slice(out, where, size)
        return lax.dynamic_update_slice(out, jnp.where(ours[:, None, None, None], new, kept), where)

    padded_out: jax.Array = lax.fori_loop(0, ends_R[-1], item, jnp.zeros_like(padded_q))
    return padded_out[block : block + tokens]


def query_block(group: int) -> int:
    """Queries per prefill item: a power of two, so that items stay aligned with key blocks and pages."""
    block = QUERY_BLOCK
    while block > 1 and block * group > _QUERY_ROWS:
        block //= 2
    return block


def _first_key(position: jax.Array, window: int | None) -> jax.Array:
    """Lowest key position that a query at `position` sees."""
    return jnp.zeros_like(position) if window is None else jnp.maximum(position - window + 1, 0)


def _block_loop(queries: _Queries, kv: jax.Array, sinks_KM: jax.Array | None, options: _Options) -> jax.Array:
    """Run the online softmax over the blocks each row needs -> float32 [X, K, M, H]; zero where there is no query."""
    rows, kv_heads, width, head_dim = queries.q_XKMH.shape
    shape = (rows, kv_heads, width, 1)
    if sinks_KM is None:
        peak, total = jnp.full(shape, _MASKED, jnp.float32), jnp.zeros(shape, jnp.float32)
    else:
        peak, total = jnp.broadcast_to(sinks_KM[None, :, :, None], shape), jnp.ones(shape, jnp.float32)
    first_block_X = queries.first_X // KEY_BLOCK
    trips = jnp.max(queries.last_X // KEY_BLOCK - first_block_X + 1)

    def step(index: jax.Array, state: _Running) -> _Running:
        return _block(first_block_X + index, state, queries, kv, options)

    start = _Running(peak, total, jnp.zeros((rows, kv_heads, width, head_dim), jnp.float32))
    state = lax.fori_loop(0, trips, step, start)
    out: jax.Array = state.values / jnp.where(state.total == 0.0, 1.0, state.total)
    return out


def _block(block_X: jax.Array, state: _Running, queries: _Queries, kv: jax.Array, options: _Options) -> _Running:
    """Fold one block of keys (block number per row) into the running softmax."""
    k_XKBH, v_XKBH = _gather(block_X, queries.pages_XP, kv)
    keys_XB = block_X[:, None] * KEY_BLOCK + jnp.arange(KEY_BLOCK)
    seen_XB = (keys_XB >= queries.first_X[:, None]) & (keys_XB <= queries.last_X[:, None])
    v_XKBH = jnp.where(seen_XB[:, None, :, None], v_XKBH, 0)
    scores = _score(queries.q_XKMH, k_XKBH, options)
    allowed = keys_XB[:, None, :] <= queries.positions_XM[:, :, None]
    if options.window is not None:
        allowed &= keys_XB[:, None, :] > queries.positions_XM[:, :, None] - options.window
    allowed = allowed[:, None]
    scores = jnp.where(allowed, scores, _MASKED)
    peak = jnp.maximum(state.peak, jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.where(allowed, jnp.exp(scores - peak), 0.0)
    decay = jnp.exp(state.peak - peak)
    return _Running(
        peak,
        state.total * decay + row_sum(weights),
        state.values * decay + _weigh(weights.astype(v_XKBH.dtype), v_XKBH),
    )


def _gather(block_X: jax.Array, pages_XP: jax.Array, kv: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values of one block per row, each [X, K, KEY_BLOCK, H]."""
    _, page, twice_heads, head_dim = kv.shape
    per_block = KEY_BLOCK // page
    columns = (block_X[:, None] * per_block + jnp.arange(per_block)) % pages_XP.shape[1]
    pages = jnp.take_along_axis(pages_XP, columns, axis=1)
    chosen = lax.platform_dependent(kv, pages, tpu=_take_tokens, default=_take_pages)
    pairs = chosen.reshape(block_X.shape[0], KEY_BLOCK, twice_heads // 2, 2, head_dim).transpose(3, 0, 2, 1, 4)
    return pairs[0], pairs[1]


def _take_pages(kv: jax.Array, pages: jax.Array) -> jax.Array:
    """Whole pages at a time: 15 to 20% faster than by token on CPU (measured)."""
    return kv[pages]


def _take_tokens(kv: jax.Array, pages: jax.Array) -> jax.Array:
    """Token by token: the layout that writing uses, so that XLA:TPU leaves the cache where it is."""
    page = kv.shape[1]
    tokens = pages[..., None] * page + jnp.arange(page)
    return kv.reshape(-1, *kv.shape[2:])[tokens]


def _precision(x: jax.Array) -> lax.Precision | None:
    """float32 products are exact to float32 on every device."""
    return lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def _score(q_XKMH: jax.Array, k_XKBH: jax.Array, options: _Options) -> jax.Array:
    """Scaled, capped scores, float32 [X, K, M, B]."""
    dimensions = (((3,), (3,)), ((0, 1), (0, 1)))
    scores = lax.dot_general(
        q_XKMH, k_XKBH, dimensions, precision=_precision(q_XKMH), preferred_element_type=jnp.float32
    )
    scores = scores * options.scale
    return scores if options.softcap is None else options.softcap * jnp.tanh(scores / options.softcap)


def _weigh(weights_XKMB: jax.Array, v_XKBH: jax.Array) -> jax.Array:
    """Weighted sum of values, float32 [X, K, M, H].

    The values are transposed first, and for real: contracting their last axis is what keeps rows independent.
    """
    v_XKHB = lax.optimization_barrier(v_XKBH.swapaxes(2, 3))
    dimensions = (((3,), (3,)), ((0, 1), (0, 1)))
    return lax.dot_general(
        weights_XKMB, v_XKHB, dimensions, precision=_precision(v_XKBH), preferred_element_type=jnp.float32
    )
