"""The attention backend for Hopper GPUs: kernels in Pallas Mosaic GPU (`mosaic_decode.py`, `mosaic_prefill.py`).

No loop of the step has an end that the host must read. In small buckets every token is a query of its own for the
decode kernel, with or without neighbours of its row; in larger ones rows with one new token are, and the others go
through the prefill kernel. float32 goes through `blocked`: the matrix units round its operands to 19 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxserve.models.config import AttentionSpec, LatentSpec
from jaxserve.models.kernels import blocked_loops
from jaxserve.models.kernels.attention_backend import Arrays, AttentionShape, LayerBatch
from jaxserve.models.kernels.blocked import Blocked, blocked_on_gpu, write_kv
from jaxserve.models.kernels.mosaic_decode import DecodeWork, decode, list_splits
from jaxserve.models.kernels.mosaic_prefill import PrefillWork, list_tiles, prefill
from jaxserve.models.kernels.target import Target
from jaxserve.models.metadata import AttentionMeta

_SINGLE_TOKENS = 64
"""Tokens of a step up to which each of them is a query of its own."""
_WIDEST_HEAD, _LARGEST_GROUP = 256, 64
_HALVES = (jnp.bfloat16, jnp.float16)


class MosaicWork(NamedTuple):
    """What the layers of a page group share of a step; XLA leaves out what no layer uses."""

    decode: DecodeWork
    prefill: PrefillWork | None
    """None in buckets where every token is a query of its own."""
    blocked: blocked_loops.Work | blocked_loops.TokenWork
    """For float32."""


@dataclass(frozen=True)
class Mosaic(Blocked):
    """See `AttentionBackend`; the cache is that of `Blocked`."""

    name: str = "mosaic"
    page_sizes: tuple[int, ...] = (8, 16, 32, 64, 128)

    def refusal(self, spec: AttentionSpec | LatentSpec, target: Target) -> str | None:
        """Other GPUs than Hopper's, latent attention, heads of odd sizes."""
        if target.platform != "gpu" or target.capability not in (None, "9.0"):
            return "needs a Hopper GPU (compute capability 9.0)"
        if isinstance(spec, LatentSpec):
            return "has no latent attention"
        if spec.whole_images:
            return "has no attention to what is behind a token in its image"
        if spec.head_dim % 16 or spec.head_dim > _WIDEST_HEAD:
            return f"needs heads of a multiple of 16 dimensions, {_WIDEST_HEAD} at most, not {spec.head_dim}"
        if spec.num_heads // spec.num_kv_heads > _LARGEST_GROUP:
            return f"needs at most {_LARGEST_GROUP} query heads for each key/value head"
        return None

    def prepare(self, meta: AttentionMeta, shape: AttentionShape) -> MosaicWork:  # type: ignore[override]
        """The splits of decoding, the tiles of prefill."""
        group, positions = shape.heads // shape.kv_heads, meta.page_table.shape[1] * meta.page_size
        blocked = blocked_on_gpu().prepare(meta, shape)
        if meta.rows_T.shape[0] <= _SINGLE_TOKENS:
            ends_T = jnp.where(meta.valid_T, meta.positions_T + 1, 0)
            return MosaicWork(list_splits(meta.rows_T, ends_T, positions, shape.window), None, blocked)
        ends_R = jnp.where(meta.q_lens == 1, meta.kv_lens, 0)
        rows_R = jnp.arange(ends_R.shape[0], dtype=jnp.int32)
        return MosaicWork(list_splits(rows_R, ends_R, positions, shape.window), list_tiles(meta, group), blocked)

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
        """Grouped-query attention."""
        kv = write_kv(cache["kv"], k_TKH, v_TKH, batch)
        options: dict[str, Any] = {"scale": scale, "window": window, "softcap": softcap, "sinks_N": sinks_N}
        if kv.dtype not in _HALVES or q_TNH.dtype != kv.dtype:
            exact = LayerBatch(batch.meta, batch.work.blocked, batch.first_page)
            return blocked_loops.attend(q_TNH, kv, exact, **options), {"kv": kv}
        return _attend(q_TNH, kv, batch, **options), {"kv": kv}


def _attend(
    q_TNH: jax.Array,
    kv: jax.Array,
    batch: LayerBatch,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks_N: jax.Array | None,
) -> jax.Array:
    """Attention by the kernels -> [T, N, H], zero for padding tokens."""
    meta, work = batch.meta, batch.work
    options: dict[str, Any] = {"scale": scale, "window": window, "softcap": softcap, "sinks_N": sinks_N}
    if work.prefill is None:
        return decode(q_TNH, kv, meta.page_table, batch.first_page, work.decode, **options)
    q_RNH = q_TNH[jnp.minimum(meta.cu_q_lens[:-1], q_TNH.shape[0] - 1)]
    decoded_RNH = decode(q_RNH, kv, meta.page_table, batch.first_page, work.decode, **options)
    filled_TNH = prefill(q_TNH, kv, meta.page_table, batch.first_page, work.prefill, **options)
    single_T = (meta.q_lens == 1)[meta.rows_T]
    chosen_TNH = jnp.where(single_T[:, None, None], decoded_RNH[meta.rows_T], filled_TNH)
    return jnp.where(meta.valid_T[:, None, None], chosen_TNH, 0)
