"""DeepSeek sparse attention (DeepSeek-V3.2, 2025) over the paged cache, in plain JAX.

A lightning indexer scores every position before a query, and attention sees the best `top_k` of them. Loops with a
dynamic trip count take a few tokens at a time, whatever rows they belong to: the first scores and selects, each device
for its share of the tokens, the second gathers the selected latents and attends. So no array has the step's tokens and
the whole context as dimensions, and a token is computed by the same operations in a decode row as in any prefill chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

from jaxserve.models.kernels.attention_backend import IndexQueries, LayerBatch
from jaxserve.models.kernels.softmax import KEY_BLOCK, Keys, Running, begin, finish, fold, products
from jaxserve.models.reductions import row_sum

TOKEN_BLOCK = 16
"""Tokens at a time at most."""


class _Tokens(NamedTuple):
    """Where each token is."""

    position_T: jax.Array
    """-1 for padding."""
    rows_T: jax.Array


def attend_sparse(
    q_TNC: Float[Array, "T N C"],
    latent: Float[Array, "SP page C"],
    index: Float[Array, "SP page index_H"],
    wanted: IndexQueries,
    batch: LayerBatch,
    *,
    scale: float,
    value_dim: int,
    top_k: int,
    axes: tuple[str, ...] = (),
) -> Float[Array, "T N V"]:
    """Latent attention over the positions that the indexer selects; the step's rows and keys are already written."""
    meta = batch.meta
    pages_RP, used = meta.page_table + batch.first_page, meta.cu_q_lens[-1]
    tokens = _Tokens(jnp.where(meta.valid_T, meta.positions_T, -1), meta.rows_T)

    def choose(asked: IndexQueries, here: _Tokens) -> jax.Array:
        return select(asked, index, here.position_T, pages_RP[here.rows_T], top_k)

    def attend(q_QNC: jax.Array, selected_QJ: jax.Array, here: _Tokens) -> jax.Array:
        o_QNV = _attend_selected(q_QNC, latent, selected_QJ, here.position_T, pages_RP[here.rows_T], scale, value_dim)
        return o_QNV.astype(q_TNC.dtype)

    selected_TJ = _shared(choose, (wanted, tokens), used, axes)
    return _by_blocks(attend, (q_TNC, selected_TJ, tokens), used)


def _shared(
    compute: Callable[..., jax.Array], parts: tuple[Any, ...], used: jax.Array, axes: tuple[str, ...]
) -> jax.Array:
    """`_by_blocks`, each device taking every n-th of the tokens; whole on all of them."""
    if not axes:
        return _by_blocks(compute, parts, used)
    count, tokens = lax.axis_size(axes), jax.tree.leaves(parts)[0].shape[0]
    own = jax.tree.map(lambda x: _every(_padded(x, -tokens % count), count, lax.axis_index(axes)), parts)
    mine = _by_blocks(compute, own, (used + count - 1) // count)
    every: jax.Array = lax.all_gather(mine, axes)
    return every.swapaxes(0, 1).reshape(-1, *mine.shape[1:])[:tokens]


def _by_blocks(compute: Callable[..., jax.Array], parts: tuple[Any, ...], used: jax.Array) -> jax.Array:
    """`compute` on the first `used` tokens of all arrays in `parts`, block after block; zero behind its last block."""
    tokens = jax.tree.leaves(parts)[0].shape[0]
    block = min(TOKEN_BLOCK, tokens)
    padded = jax.tree.map(lambda x: _padded(x, -tokens % block), parts)
    like = jax.eval_shape(lambda: compute(*jax.tree.map(lambda x: x[:block], padded)))

    def item(number: jax.Array, out: jax.Array) -> jax.Array:
        here = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, number * block, block, axis=0), padded)
        return lax.dynamic_update_slice_in_dim(out, compute(*here), number * block, axis=0)

    empty = jnp.zeros((tokens + -tokens % block, *like.shape[1:]), like.dtype)
    out: jax.Array = lax.fori_loop(0, (used + block - 1) // block, item, empty)
    return out[:tokens]


def _every(x_T: jax.Array, count: int, first: jax.Array) -> jax.Array:
    """Tokens `first`, `first` + `count`, ..."""
    shares = x_T.reshape(-1, count, *x_T.shape[1:])
    share: jax.Array = lax.dynamic_index_in_dim(shares, first, axis=1, keepdims=False)
    return share


def _padded(x_T: jax.Array, spare: int) -> jax.Array:
    """Tokens behind the last: numbers are zero, positions and rows -1."""
    value = -1 if jnp.issubdtype(x_T.dtype, jnp.integer) else 0
    return jnp.pad(x_T, ((0, spare), *[(0, 0)] * (x_T.ndim - 1)), constant_values=value)


def select(
    asked: IndexQueries,
    index: Float[Array, "SP page index_H"],
    position_Q: Int32[Array, " Q"],
    pages_QP: Int32[Array, "Q P"],
    top_k: int,
) -> Int32[Array, "Q J"]:
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
    q_QNC: jax.Array,
    latent: jax.Array,
    selected_QJ: jax.Array,
    position_Q: jax.Array,
    pages_QP: jax.Array,
    scale: float,
    value_dim: int,
) -> jax.Array:
    """Softmax attention of each token over its selected positions, float32 [Q, N, V]."""
    count, heads, _ = q_QNC.shape
    spare = -selected_QJ.shape[1] % KEY_BLOCK
    padded_QJ = jnp.pad(selected_QJ, ((0, 0), (0, spare)), constant_values=-1)
    q_QKNC = q_QNC[:, None]

    def step(block: jax.Array, state: Running) -> Running:
        positions_QB = lax.dynamic_slice_in_dim(padded_QJ, block * KEY_BLOCK, KEY_BLOCK, axis=1)
        seen_QB = positions_QB >= 0
        keys = _gather(latent, jnp.maximum(positions_QB, 0), pages_QP)[:, None]
        return fold(state, q_QKNC, Keys(keys, keys[..., :value_dim], seen_QB, seen_QB[:, None]), scale=scale)

    longest = jnp.minimum(jnp.max(position_Q) + 1, selected_QJ.shape[1])
    trips = (longest + KEY_BLOCK - 1) // KEY_BLOCK
    return finish(lax.fori_loop(0, trips, step, begin((count, 1, heads), value_dim)))[:, 0]


def _gather(array: jax.Array, positions_QB: jax.Array, pages_QP: jax.Array) -> jax.Array:
    """What the cache holds at these positions of each token's row, [Q, B, ...]."""
    page = array.shape[1]
    pages = jnp.take_along_axis(pages_QP, positions_QB // page % pages_QP.shape[1], axis=1)
    return array.reshape(-1, *array.shape[2:])[pages * page + positions_QB % page]
