"""Grouped-query attention (Ainslie et al. 2023) over the paged cache."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import nnx
from jax.sharding import PartitionSpec

from jaxserve.models.config import AttentionSpec
from jaxserve.models.metadata import AttentionMeta
from jaxserve.models.norm import RMSNorm
from jaxserve.models.parameters import ZEROS, Build, Linear
from jaxserve.models.rope import RopeTable, rotate

CACHE_AXES = (None, None, "kv_heads", None)
"""Logical axes of the array "kv" [S*P, page, 2K, H]: a shard holds whole heads, each K beside its V."""


class Attention(nnx.Module):
    """Projections, rotation, cache write, attention, output projection (one all-reduce)."""

    def __init__(self, build: Build, spec: AttentionSpec, width: int) -> None:
        q_size, kv_size = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
        self.q_proj = Linear(build, width, q_size, ("q_heads", "embed"), bias=spec.qkv_bias)
        self.k_proj = Linear(build, width, kv_size, ("kv_heads", "embed"), bias=spec.qkv_bias)
        self.v_proj = Linear(build, width, kv_size, ("kv_heads", "embed"), bias=spec.qkv_bias)
        self.o_proj = Linear(build, q_size, width, ("embed", "q_heads"), bias=spec.out_bias)
        self.q_norm = self._norm(build, spec, q_size, "q_heads")
        self.k_norm = self._norm(build, spec, kv_size, "kv_heads")
        self.sinks = build.parameter((spec.num_heads,), ("q_heads",), ZEROS) if spec.sinks else None
        self.spec, self.rules, self.backend = spec, build.rules, build.backend

    @staticmethod
    def _norm(build: Build, spec: AttentionSpec, size: int, axis: str) -> RMSNorm | None:
        if spec.qk_norm == "none":
            return None
        return RMSNorm(build, size, axis) if spec.qk_norm == "all" else RMSNorm(build, spec.head_dim, "head_dim")

    def _heads(self, x_TI: jax.Array, norm: RMSNorm | None, heads: int) -> jax.Array:
        """Cut a projection into heads, normed before or after as the layer wants."""
        whole = self.spec.qk_norm == "all"
        if norm is not None and whole:
            x_TI = norm(x_TI)
        x_TNH = x_TI.reshape(x_TI.shape[0], heads, self.spec.head_dim)
        return x_TNH if norm is None or whole else norm(x_TNH)

    def __call__(
        self,
        x_TD: jax.Array,
        cache: Mapping[str, jax.Array],
        meta: AttentionMeta,
        table: RopeTable,
        first_page: jax.Array | int,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[T, D] -> [T, D] and the cache with this layer's new keys and values; `first_page` is the layer's page 0."""
        spec, tokens = self.spec, x_TD.shape[0]
        with jax.named_scope("qkv"):
            q_TNH = self._heads(self.q_proj(x_TD), self.q_norm, spec.num_heads)
            k_TKH = self._heads(self.k_proj(x_TD), self.k_norm, spec.num_kv_heads)
            v_TKH = self._heads(self.v_proj(x_TD), None, spec.num_kv_heads)
            q_TNH = rotate(q_TNH, table, interleaved=spec.rope.interleaved)
            k_TKH = rotate(k_TKH, table, interleaved=spec.rope.interleaved)
        with jax.named_scope("attention"):
            o_TNH, kv = self._attend(q_TNH, k_TKH, v_TKH, cache["kv"], meta, first_page)
        with jax.named_scope("out"):
            o_TD = self.o_proj(o_TNH.reshape(tokens, spec.num_heads * spec.head_dim))
            return self.rules.constrain(o_TD), {**cache, "kv": kv}

    def _attend(
        self,
        q_TNH: jax.Array,
        k_TKH: jax.Array,
        v_TKH: jax.Array,
        kv: jax.Array,
        meta: AttentionMeta,
        first_page: jax.Array | int,
    ) -> tuple[jax.Array, jax.Array]:
        """Cache write and attention, each device on its own heads."""
        backend, spec = self.backend, self.spec
        sinks_N = None if self.sinks is None else self.sinks[...]

        def local(
            q: jax.Array,
            k: jax.Array,
            v: jax.Array,
            kv: jax.Array,
            sinks: jax.Array | None,
            meta: AttentionMeta,
            first_page: jax.Array | int,
        ) -> tuple[jax.Array, jax.Array]:
            kv = backend.write_kv(kv, k, v, meta, first_page)
            o = backend.attend(
                q, kv, meta, first_page, scale=spec.scale, window=spec.window, softcap=spec.softcap, sinks_N=sinks
            )
            return o, kv

        heads = self.rules.spec((None, "q_heads", None))
        kv_heads = self.rules.spec((None, "kv_heads", None))
        cache = self.rules.spec(CACHE_AXES)
        whole = PartitionSpec()
        island = jax.shard_map(
            local,
            mesh=self.rules.mesh,
            in_specs=(heads, kv_heads, kv_heads, cache, self.rules.spec(("q_heads",)), whole, whole),
            out_specs=(heads, cache),
            check_vma=False,
        )
        result: tuple[jax.Array, jax.Array] = island(q_TNH, k_TKH, v_TKH, kv, sinks_N, meta, first_page)
        return result
