"""DeepSeek sparse attention (DeepSeek-V3.2, 2025) over the paged cache, in plain JAX.

A lightning indexer scores every position before a query, and attention sees the best `top_k` of them. A loop with a
dynamic trip count takes a few tokens at a time, whatever rows they belong to: it scores them, selects, gathers their
latents and attends. So no array has the step's tokens and the whole context as dimensions, and a token is computed by
the same operations in a decode row as in any prefill chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxserve.models.kernels.softmax import KEY_BLOCK, Keys, Running, begin, finish, fold, products
from jaxserve.models.metadata import AttentionMeta
from jaxserve.models.reductions import row_sum

TOKEN_BLOCK = 16
"""Tokens at a time at most."""


class IndexQueries(NamedTuple):
    """What the indexer asks for each token."""

    q_TIH: jax.Array
    """I index heads."""
    weights_TI: jax.Array
    """float32: weight of each head's score."""


class _Tokens(NamedTuple):
    """Q tokens, each with the pages of its row."""

    position_Q: jax.Array
    """-1 for padding."""
    pages_QP: jax.Array


def attend_sparse(
    q_TNC: jax.Array,
    latent: jax.Array,
    index: jax.Array,
    wanted: IndexQueries,
    meta: AttentionMeta,
    first_page: jax.Array | int,
    *,
    scale: float,
    value_dim: int,
    top_k: int,
) -> jax.Array:
    """Latent attention over the positions that the indexer selects; see `backend.AttendSparse`."""
    tokens, heads, _ = q_TNC.shape
    block = min(TOKEN_BLOCK, tokens)
    spare = -tokens % block
    every = (q_TNC, wanted, jnp.where(meta.valid_T, meta.positions_T, -1), meta.rows_T)
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, spare), *[(0, 0)] * (x.ndim - 1))), every)

    def item(number: jax.Array, out: jax.Array) -> jax.Array:
        begin_at = number * block
        q_QNC, asked, position_Q, rows_Q = jax.tree.map(
            lambda x: lax.dynamic_slice_in_dim(x, begin_at, block, axis=0), padded
        )
        own = begin_at + jnp.arange(block) < tokens
        here = _Tokens(jnp.where(own, position_Q, -1), meta.page_table[rows_Q] + first_page)
        selected_QJ = select(asked, index, here.position_Q, here.pages_QP, top_k)
        o_QNV = _attend_selected(q_QNC, latent, selected_QJ, here, scale, value_dim)
        return lax.dynamic_update_slice_in_dim(out, o_QNV.astype(out.dtype), begin_at, axis=0)

    empty = jnp.zeros((tokens + spare, heads, value_dim), q_TNC.dtype)
    trips = (meta.cu_q_lens[-1] + block - 1) // block
    padded_out: jax.Array = lax.fori_loop(0, trips, item, empty)
    return padded_out[:tokens]


def select(asked: IndexQueries, index: jax.Array, position_Q: jax.Array, pages_QP: jax.Array, top_k: int) -> jax.Array:
    """Positions that each token attends to, int32 [Q, min(top_k, context)], -1 behind the last.

    A token with at most `top_k` positions sees all of them, and nothing is scored where that holds for all tokens.
    Elsewhere the best come first, of equal scores the lower position.
    """
    context = pages_QP.shape[1] * index.shape[1]
    first = jnp.arange(min(top_k, context), dtype=jnp.int32)
    every_QJ = jnp.broadcast_to(first, (position_Q.shape[0], first.size))
    if top_k < context:
        few_Q = position_Q < top_k
        best_QJ = lax.cond(
            jnp.all(few_Q),
            lambda: every_QJ,
            lambda: lax.top_k(_scores(asked, index, position_Q, pages_QP), top_k)[1].astype(jnp.int32),
        )
        every_QJ = jnp.where(few_Q[:, None], every_QJ, best_QJ)
    return jnp.where(every_QJ <= position_Q[:, None], every_QJ, -1)


def _scores(asked: IndexQueries, index: jax.Array, position_Q: jax.Array, pages_QP: jax.Array) -> jax.Array:
    """Weighted sum over the index heads of relu(q . k), float32 [Q, context]; -inf behind a token's own position."""
    tokens, context = position_Q.shape[0], pages_QP.shape[1] * index.shape[1]

    def step(block: jax.Array, scores: jax.Array) -> jax.Array:
        positions_QB = jnp.broadcast_to(block * KEY_BLOCK + jnp.arange(KEY_BLOCK), (tokens, KEY_BLOCK))
        keys_QBH = _gather(index, positions_QB, pages_QP)
        hits_QIB = jax.nn.relu(products(asked.q_TIH[:, None], keys_QBH[:, None])[:, 0])
        score_QB = row_sum((hits_QIB * asked.weights_TI[:, :, None]).swapaxes(1, 2))[..., 0]
        score_QB = jnp.where(positions_QB <= position_Q[:, None], score_QB, -jnp.inf)
        return lax.dynamic_update_slice_in_dim(scores, score_QB, block * KEY_BLOCK, axis=1)

    start = jnp.full((tokens, context + -context % KEY_BLOCK), -jnp.inf, jnp.float32)
    scores: jax.Array = lax.fori_loop(0, jnp.max(position_Q) // KEY_BLOCK + 1, step, start)
    return scores


def _attend_selected(
    q_QNC: jax.Array, latent: jax.Array, selected_QJ: jax.Array, tokens: _Tokens, scale: float, value_dim: int
) -> jax.Array:
    """Softmax attention of each token over its selected positions, float32 [Q, N, V]."""
    count, heads, _ = q_QNC.shape
    spare = -selected_QJ.shape[1] % KEY_BLOCK
    padded_QJ = jnp.pad(selected_QJ, ((0, 0), (0, spare)), constant_values=-1)
    q_QKNC = q_QNC[:, None]

    def step(block: jax.Array, state: Running) -> Running:
        positions_QB = lax.dynamic_slice_in_dim(padded_QJ, block * KEY_BLOCK, KEY_BLOCK, axis=1)
        seen_QB = positions_QB >= 0
        keys = _gather(latent, jnp.maximum(positions_QB, 0), tokens.pages_QP)[:, None]
        return fold(state, q_QKNC, Keys(keys, keys[..., :value_dim], seen_QB, seen_QB[:, None]), scale=scale)

    longest = jnp.minimum(jnp.max(tokens.position_Q) + 1, selected_QJ.shape[1])
    trips = (longest + KEY_BLOCK - 1) // KEY_BLOCK
    return finish(lax.fori_loop(0, trips, step, begin((count, 1, heads), value_dim)))[:, 0]


def _gather(array: jax.Array, positions_QB: jax.Array, pages_QP: jax.Array) -> jax.Array:
    """What the cache holds at these positions of each token's row, [Q, B, ...]."""
    page = array.shape[1]
    pages = jnp.take_along_axis(pages_QP, positions_QB // page % pages_QP.shape[1], axis=1)
    return array.reshape(-1, *array.shape[2:])[pages * page + positions_QB % page]
