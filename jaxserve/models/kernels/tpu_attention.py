"""The attention backend for TPUs: kernels in Pallas (`tpu_write.py`, `tpu_attend.py`).

Pages hold heads before positions, and of each head key and value side by side: so a block of keys lies in VMEM as the
matrix units take it, and heads of 64 fill whole registers. Latents are the case of one head whose value is part of its
key. With an indexer, attention is that of `sparse.py`, over the same pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxserve.models.config import AttentionSpec, LatentSpec
from jaxserve.models.kernels import blocked, blocked_loops
from jaxserve.models.kernels.attention_backend import (
    Arrays,
    AttentionShape,
    CacheArray,
    LayerBatch,
    PageFormat,
    Selection,
)
from jaxserve.models.kernels.target import Target
from jaxserve.models.kernels.tpu_attend import Form, attend
from jaxserve.models.kernels.tpu_work import Lanes, TpuWork, key_block, list_tasks, list_tiles, query_block
from jaxserve.models.kernels.tpu_write import write_rows
from jaxserve.models.metadata import AttentionMeta

_WIDEST_HEAD = 256


class _Work(NamedTuple):
    tpu: TpuWork
    blocked: blocked_loops.Work
    """For sparse attention; XLA leaves out what no layer uses."""


@dataclass(frozen=True)
class PallasTpu(blocked.Blocked):
    """See `AttentionBackend`."""

    name: str = "pallas_tpu"
    page_sizes: tuple[int, ...] = (16, 32, 64, 128)
    interpret: bool = False
    """Without a TPU, slowly: for tests."""

    def refusal(self, spec: AttentionSpec | LatentSpec, target: Target) -> str | None:
        """Other devices than TPUs, heads that are wider than any model's."""
        if target.platform != "tpu" and not self.interpret:
            return "needs a TPU"
        if isinstance(spec, AttentionSpec) and spec.whole_images:
            return "has no attention to what is behind a token in its image"
        if isinstance(spec, AttentionSpec) and spec.head_dim > _WIDEST_HEAD:
            return f"needs heads of {_WIDEST_HEAD} dimensions at most, not {spec.head_dim}"
        return None

    def cache_arrays(self, spec: AttentionSpec | LatentSpec, page: PageFormat) -> dict[str, CacheArray]:
        """ "kv" [K, page, W], or what `Blocked` keeps of latents."""
        if isinstance(spec, AttentionSpec):
            shape = (spec.num_kv_heads, page.size, Lanes.of_heads(spec.head_dim).width)
            return {"kv": CacheArray(shape, ("kv_heads", None, None), page.dtype)}
        return super().cache_arrays(spec, PageFormat(page.size, page.dtype, "tpu"))

    def prepare(self, meta: AttentionMeta, shape: AttentionShape) -> _Work:  # type: ignore[override]
        """Tiles to write, tasks to attend to."""
        block = query_block(shape, meta.rows_T.shape[0])
        older = blocked_loops.list_work(
            meta, blocked_loops.query_block(shape.heads // shape.kv_heads, meta.rows_T.shape[0])
        )
        return _Work(TpuWork(list_tiles(meta), list_tasks(meta, block)), older)

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
        heads, head_dim = q_TNH.shape[1:]
        kv_heads, lanes = k_TKH.shape[1], Lanes.of_heads(head_dim)
        offset = lanes.value_offset(head_dim)
        rows_TKW = jnp.concatenate((_padded(k_TKH, offset), _padded(v_TKH, lanes.width - offset)), axis=2)
        kv = write_rows(cache["kv"], rows_TKW, batch.work.tpu.tiles, batch.first_page, interpret=self.interpret)
        form = self._form(batch, (heads, kv_heads, head_dim), lanes, scale, window, softcap)
        o_TNV = self._attend(form, _padded(q_TNH, lanes.key), kv, batch, sinks_N)
        begin = offset - lanes.value_from
        return o_TNV[:, :, begin : begin + head_dim], {"kv": kv}

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
        """Latent attention; with a selection as `Blocked` does it."""
        if selection is not None and top_k is not None:
            older = LayerBatch(batch.meta, batch.work.blocked, batch.first_page)
            return super().write_and_attend_latent(
                q_TNC, rows_TC, selection, cache, older, scale=scale, value_dim=value_dim, top_k=top_k, axes=axes
            )
        heads, head_dim = q_TNC.shape[1:]
        lanes = Lanes.of_latents(head_dim, value_dim)
        latent = cache["latent"]
        pages = latent.reshape(latent.shape[0], 1, *latent.shape[1:])
        rows_TKW = _padded(rows_TC, lanes.width)[:, None]
        pages = write_rows(pages, rows_TKW, batch.work.tpu.tiles, batch.first_page, interpret=self.interpret)
        form = self._form(batch, (heads, 1, head_dim), lanes, scale, None, None)
        o_TNV = self._attend(form, _padded(q_TNC, lanes.key), pages, batch, None)
        return o_TNV[:, :, :value_dim], {"latent": pages.reshape(latent.shape)}

    def _form(
        self,
        batch: LayerBatch,
        sizes: tuple[int, int, int],
        lanes: Lanes,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Form:
        heads, kv_heads, head_dim = sizes
        shape = AttentionShape(heads, kv_heads, head_dim, head_dim)
        return Form(
            kv_heads,
            heads // kv_heads,
            lanes,
            batch.meta.page_size,
            batch.meta.page_table.shape[1],
            key_block(kv_heads, lanes),
            query_block(shape, batch.meta.rows_T.shape[0]),
            scale,
            window,
            softcap,
        )

    def _attend(
        self, form: Form, q_TNH: jax.Array, pages: jax.Array, batch: LayerBatch, sinks_N: jax.Array | None
    ) -> jax.Array:
        """Queries as wide as keys -> [T, N, V], zero for padding tokens."""
        meta, tasks = batch.meta, batch.work.tpu.tasks
        tokens = q_TNH.shape[0]
        q_RNH = q_TNH[jnp.minimum(meta.cu_q_lens[:-1], tokens - 1)]
        by_head = None if sinks_N is None else sinks_N.reshape(form.kv_heads, form.group)
        o_RNV, o_TNV = attend(
            form,
            tasks,
            meta.page_table,
            batch.first_page,
            q_RNH,
            jnp.pad(q_TNH, ((0, form.queries), (0, 0), (0, 0))),
            None if by_head is None else jnp.tile(by_head, (1, form.queries)),
            pages,
            interpret=self.interpret,
        )
        chosen_TNV = jnp.where(tasks.decodes_T[:, None, None], o_RNV[meta.rows_T], o_TNV[:tokens])
        return jnp.where(meta.valid_T[:, None, None], chosen_TNV, 0)


def _padded(x: jax.Array, width: int) -> jax.Array:
    """x with zeros behind, `width` wide."""
    return jnp.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, width - x.shape[-1])))
