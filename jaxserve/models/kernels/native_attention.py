"""The attention backend for CPUs: one C++ kernel (`jaxserve.native`) writes and attends, for all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxserve.models.config import AttentionSpec, LatentSpec
from jaxserve.models.kernels.attention_backend import (
    Arrays,
    AttentionShape,
    CacheArray,
    LayerBatch,
    PageFormat,
    Selection,
)
from jaxserve.models.kernels.target import Target
from jaxserve.models.metadata import AttentionMeta
from jaxserve.native.calls import KEY_BLOCK, Pages, attention
from jaxserve.native.library import load, unavailable


@dataclass(frozen=True)
class NativeAttention:
    """See `AttentionBackend`. Keys and values lie apart in "kv": 2k = K, 2k + 1 = V of head k."""

    name: str = "native"
    page_sizes: tuple[int, ...] = tuple(size for size in range(1, KEY_BLOCK + 1) if KEY_BLOCK % size == 0)

    def refusal(self, spec: AttentionSpec | LatentSpec, target: Target) -> str | None:
        """Other devices, cached latents, and machines where the kernels can't be had."""
        if target.platform != "cpu":
            return "runs on CPUs only"
        if isinstance(spec, LatentSpec):
            return "has no attention over latents"
        reason = unavailable()
        return None if reason is None else f"is not there: {reason}"

    def cache_arrays(self, spec: AttentionSpec | LatentSpec, page: PageFormat) -> dict[str, CacheArray]:
        """ "kv" [2K, page, H]."""
        if isinstance(spec, LatentSpec):
            raise TypeError("the backend refuses latents")
        shape = (2 * spec.num_kv_heads, page.size, spec.head_dim)
        return {"kv": CacheArray(shape, ("kv_heads", None, None), page.dtype)}

    def prepare(self, meta: AttentionMeta, shape: AttentionShape) -> None:
        """Nothing: the kernel reads the rows itself."""

    def write_and_attend(
        self,
        q_TNH: jax.Array,
        k_TKH: jax.Array,
        v_TKH: jax.Array,
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks_N: jax.Array | None,
    ) -> tuple[jax.Array, Arrays]:
        """Grouped-query attention; scores, weights and sums are float32."""
        q, k, v = (x.astype(jnp.float32) for x in (q_TNH, k_TKH, v_TKH))
        meta = batch.meta
        pages = Pages(meta.cu_q_lens, meta.kv_lens, meta.page_table, batch.first_page, meta.lasts_T)
        out_TNH, kv = attention(
            load(), q, k, v, cache["kv"], pages, scale=scale, window=window, softcap=softcap, sinks_N=sinks_N
        )
        return out_TNH.astype(q_TNH.dtype), {"kv": kv}

    def write_and_attend_latent(
        self,
        q_TNC: jax.Array,
        rows_TC: jax.Array,
        selection: Selection | None,
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
        *,
        scale: float,
        value_dim: int,
        top_k: int | None,
        axes: tuple[str, ...],
    ) -> tuple[jax.Array, Arrays]:
        """Refused: see `refusal`."""
        raise TypeError("the backend refuses latents")
