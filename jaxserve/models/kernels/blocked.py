"""The universal attention backend: plain JAX (`blocked_loops.py`, and `sparse.py` with an indexer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxserve.models.config import AttentionSpec, LatentSpec
from jaxserve.models.kernels.attention_backend import (
    Arrays,
    AttentionShape,
    CacheArray,
    LayerBatch,
    PageFormat,
    Selection,
)
from jaxserve.models.kernels.blocked_loops import TokenWork, Work, attend, attend_latent, list_work, query_block
from jaxserve.models.kernels.softmax import KEY_BLOCK
from jaxserve.models.kernels.sparse import attend_sparse
from jaxserve.models.kernels.target import Target
from jaxserve.models.metadata import AttentionMeta

_TPU_LANES = 128
_SINGLE_TOKENS = 64
"""Tokens of a step up to which fixed trips take each token as a row of its own."""


@dataclass(frozen=True)
class Blocked:
    """See `AttentionBackend`. Keys and values lie side by side in "kv": 2k = K, 2k + 1 = V of head k."""

    name: str = "blocked"
    fixed_trips: bool = False
    """Whether loops of steps of few tokens run to the end of the page table instead of the longest row's: nobody must
    read their ends while the step runs."""
    page_sizes: tuple[int, ...] = tuple(size for size in range(1, KEY_BLOCK + 1) if KEY_BLOCK % size == 0)

    def refusal(self, spec: AttentionSpec | LatentSpec, target: Target) -> str | None:
        """Nothing is refused."""
        return None

    def cache_arrays(self, spec: AttentionSpec | LatentSpec, page: PageFormat) -> dict[str, CacheArray]:
        """ "kv" [page, 2K, H], or "latent" [page, C] and, of an indexer, "index" [page, H']."""
        if isinstance(spec, AttentionSpec):
            shape = (page.size, 2 * spec.num_kv_heads, spec.head_dim)
            return {"kv": CacheArray(shape, (None, "kv_heads", None), page.dtype)}
        # With rows of 576 numbers XLA:TPU would make the pages the minor dimension and copy the cache in and out.
        spare = -spec.head_dim % (_TPU_LANES if page.platform == "tpu" else 1)
        widths = {"latent": spec.head_dim + spare}
        if spec.indexer is not None:
            widths["index"] = spec.indexer.head_dim
        return {name: CacheArray((page.size, width), (None, None), page.dtype) for name, width in widths.items()}

    def prepare(self, meta: AttentionMeta, shape: AttentionShape) -> Work | TokenWork:
        """The items of prefill and the rows that decode; with fixed trips, where tokens are few, each of them."""
        if self.fixed_trips and meta.rows_T.shape[0] <= _SINGLE_TOKENS:
            return TokenWork(jnp.where(meta.valid_T, meta.positions_T, -1))
        return list_work(meta, query_block(shape.heads // shape.kv_heads, meta.rows_T.shape[0]))

    def write_and_attend(
        self,
        q_TNH: Float[Array, "T N H"],
        k_TKH: Float[Array, "T K H"],
        v_TKH: Float[Array, "T K H"],
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks_N: Float[Array, " N"] | None,
    ) -> tuple[Float[Array, "T N H"], Arrays]:
        """Grouped-query attention."""
        kv = write_kv(cache["kv"], k_TKH, v_TKH, batch)
        return attend(q_TNH, kv, batch, scale=scale, window=window, softcap=softcap, sinks_N=sinks_N), {"kv": kv}

    def write_and_attend_latent(
        self,
        q_TNC: Float[Array, "T N C"],
        rows_TC: Float[Array, "T C"],
        selection: Selection | None,
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
        *,
        scale: float,
        value_dim: int,
        top_k: int | None,
        axes: tuple[str, ...],
    ) -> tuple[Float[Array, "T N V"], Arrays]:
        """Latent attention, sparse with a selection."""
        latent = write_rows(cache["latent"], _widened(rows_TC, cache["latent"]), batch)
        q_TNC = _widened(q_TNC, latent)
        if selection is None or top_k is None:
            return attend_latent(q_TNC, latent, batch, scale=scale, value_dim=value_dim), {"latent": latent}
        index = write_rows(cache["index"], selection.k_TH, batch)
        o_TNV = attend_sparse(
            q_TNC, latent, index, selection.queries, batch, scale=scale, value_dim=value_dim, top_k=top_k, axes=axes
        )
        return o_TNV, {"latent": latent, "index": index}


def blocked_on_gpu() -> Blocked:
    """As GPUs want it: a loop whose end depends on values costs a word with the host on every trip."""
    return Blocked(fixed_trips=True)


def write_kv(
    kv: Float[Array, "SP page twice_K H"],
    k_TKH: Float[Array, "T K H"],
    v_TKH: Float[Array, "T K H"],
    batch: LayerBatch,
) -> Float[Array, "SP page twice_K H"]:
    """Put each token's key and value into its page of `kv` [S*P, page, 2K, H]."""
    tokens, kv_heads, head_dim = k_TKH.shape
    rows = jnp.stack([k_TKH, v_TKH], axis=2).reshape(tokens, 2 * kv_heads, head_dim)
    return write_rows(kv, rows, batch)


def write_rows(
    array: Float[Array, "SP page *row"], rows: Float[Array, "T *row"], batch: LayerBatch
) -> Float[Array, "SP page *row"]:
    """Put one row [T, ...] per token into its page of `array` [S*P, page, ...], in place where that is donated."""
    meta = batch.meta
    where_T = (meta.write_pages_T + batch.first_page) * array.shape[1] + meta.write_offsets_T
    # Over token rows, as `_gather` reads on TPU: one layout for both, or XLA:TPU copies the cache in every layer.
    return array.reshape(-1, *array.shape[2:]).at[where_T].set(rows.astype(array.dtype)).reshape(array.shape)


def _widened(x: jax.Array, array: jax.Array) -> jax.Array:
    """x with zeros behind, as wide as the rows of a cache array."""
    return jnp.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, array.shape[-1] - x.shape[-1])))
