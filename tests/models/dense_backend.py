"""An attention backend as far from `blocked` as can be: the seam's second instance, for tests only.

Keys and values are two arrays with the heads before the positions, latents are stored transposed, and attention is one
dense softmax over all positions of all pages, gathered by a list that `prepare` makes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from jaxserve.models.config import AttentionSpec
from jaxserve.models.kernels.attention_backend import CacheArray


@dataclass(frozen=True)
class Dense:
    """Attention over every position of a row's pages, with all scores at once."""

    name: str = "dense"
    page_sizes: tuple[int, ...] = (16,)
    prepared: list = field(default_factory=list, compare=False)
    """(shape, columns of the table) of each call of `prepare` while programs were traced."""

    def refusal(self, spec, target):
        if isinstance(spec, AttentionSpec):
            return "has no soft cap" if spec.softcap is not None else None
        return "has no indexer" if spec.indexer is not None else None

    def cache_arrays(self, spec, page):
        if isinstance(spec, AttentionSpec):
            shape = (spec.num_kv_heads, page.size, spec.head_dim)
            return {name: CacheArray(shape, ("kv_heads", None, None), page.dtype) for name in ("keys", "values")}
        return {"turned": CacheArray((spec.head_dim, page.size), (None, None), page.dtype)}

    def prepare(self, meta, shape):
        """[T, S] who sees what, and [T, C] the pages of each token's row, in the order of the positions they hold."""
        columns = meta.page_table.shape[1]
        self.prepared.append((shape, columns))
        newest = (meta.kv_lens - 1) // meta.page_size
        blocks_RC = jnp.maximum(newest - columns + 1, 0)[:, None] + jnp.arange(columns)
        pages_RC = jnp.take_along_axis(meta.page_table, blocks_RC % columns, axis=1)
        positions_RS = (blocks_RC[:, :, None] * meta.page_size + jnp.arange(meta.page_size)).reshape(len(newest), -1)
        seen_TS = positions_RS[meta.rows_T] <= meta.positions_T[:, None]
        if shape.window is not None:
            seen_TS &= positions_RS[meta.rows_T] > meta.positions_T[:, None] - shape.window
        return seen_TS & meta.valid_T[:, None], pages_RC[meta.rows_T]

    def write_and_attend(self, q_TNH, k_TKH, v_TKH, cache, batch, *, scale, window, softcap, sinks_N):
        meta, (seen_TS, pages_TC) = batch.meta, batch.work
        places = meta.write_pages_T + batch.first_page, slice(None), meta.write_offsets_T
        keys, values = cache["keys"].at[places].set(k_TKH), cache["values"].at[places].set(v_TKH)
        group = q_TNH.shape[1] // k_TKH.shape[1]
        k_TSNH, v_TSNH = (
            jnp.repeat(array[pages_TC + batch.first_page].swapaxes(2, 3), group, axis=3) for array in (keys, values)
        )
        k_TSNH, v_TSNH = (x.reshape(len(x), -1, *x.shape[3:]) for x in (k_TSNH, v_TSNH))
        o_TNH = softmax_sum(q_TNH, k_TSNH, v_TSNH, seen_TS, scale, sinks_N)
        return o_TNH, {"keys": keys, "values": values}

    def write_and_attend_latent(self, q_TNC, rows_TC, selection, cache, batch, *, scale, value_dim, top_k, axes):
        meta, (seen_TS, pages_TC) = batch.meta, batch.work
        places = meta.write_pages_T + batch.first_page, slice(None), meta.write_offsets_T
        turned = cache["turned"].at[places].set(rows_TC)
        rows = turned[pages_TC + batch.first_page].swapaxes(2, 3)
        rows_TS1C = rows.reshape(len(rows), -1, 1, rows.shape[-1])
        shared = jnp.broadcast_to(rows_TS1C, (*rows_TS1C.shape[:2], *q_TNC.shape[1:]))
        o_TNV = softmax_sum(q_TNC, shared, shared[..., :value_dim], seen_TS, scale, None)
        return o_TNV, {"turned": turned}


def softmax_sum(q_TNH, k_TSNH, v_TSNV, seen_TS, scale, sinks_N):
    """Attention of each token over its own S positions."""
    v_TSNV = jnp.where(seen_TS[:, :, None, None], v_TSNV, 0)
    scores = jnp.einsum("tnh,tsnh->tns", q_TNH, k_TSNH, precision=jax.lax.Precision.HIGHEST) * scale
    scores = jnp.where(seen_TS[:, None], scores, -jnp.inf)
    sinks = jnp.full(scores.shape[1], -jnp.inf) if sinks_N is None else sinks_N
    scores = jnp.concatenate([scores, jnp.broadcast_to(sinks[None, :, None], (*scores.shape[:2], 1))], axis=2)
    weights = jnp.nan_to_num(jax.nn.softmax(scores, axis=2))[..., :-1]
    return jnp.einsum("tns,tsnv->tnv", weights, v_TSNV, precision=jax.lax.Precision.HIGHEST).astype(q_TNH.dtype)
