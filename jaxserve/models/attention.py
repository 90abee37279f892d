"""Grouped-query attention (Ainslie et al. 2023) over the paged cache."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import nnx
from jax.sharding import PartitionSpec

from jaxserve.models.cache import cache_partition
from jaxserve.models.config import AttentionSpec
from jaxserve.models.kernels.attention_backend import Arrays, LayerBatch
from jaxserve.models.norm import RMSNorm
from jaxserve.models.parameters import ZEROS, Build, Linear, project
from jaxserve.models.rope import RopeTable, rotate


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
        self.spec, self.rules, self.build = spec, build.rules, build

    @staticmethod
    def _norm(build: Build, spec: AttentionSpec, size: int, axis: str) -> RMSNorm | None:
        if spec.qk_norm == "none":
            return None
        return RMSNorm(build, size, axis) if spec.qk_norm == "all" else RMSNorm(build, spec.head_dim, "head_dim")

    def _heads(self, x_TI: jax.Array, norm: RMSNorm | None, heads: int) -> jax.Array:
        """Cut a projection into heads, normed before or after as the layer wants."""
        whole = self.spec.qk_norm == "all"
        x_TI = self.build.backends.matmul.settle(x_TI)
        if norm is not None and whole:
            x_TI = norm(x_TI)
        x_TNH = x_TI.reshape(x_TI.shape[0], heads, self.spec.head_dim)
        return x_TNH if norm is None or whole else norm(x_TNH)

    def __call__(
        self, x_TD: jax.Array, cache: Mapping[str, jax.Array], batch: LayerBatch, table: RopeTable
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[T, D] -> [T, D] and the cache with this layer's new keys and values."""
        spec, tokens = self.spec, x_TD.shape[0]
        with jax.named_scope("qkv"):
            q_TI, k_TI, v_TI = project(x_TD, self.q_proj, self.k_proj, self.v_proj)
            q_TNH = self._heads(q_TI, self.q_norm, spec.num_heads)
            k_TKH = self._heads(k_TI, self.k_norm, spec.num_kv_heads)
            v_TKH = self._heads(v_TI, None, spec.num_kv_heads)
            q_TNH = rotate(q_TNH, table, interleaved=spec.rope.interleaved)
            k_TKH = rotate(k_TKH, table, interleaved=spec.rope.interleaved)
        with jax.named_scope("attention"):
            o_TNH, kept = self._attend(q_TNH, k_TKH, v_TKH, cache, batch)
        with jax.named_scope("out"):
            o_TD = self.o_proj(o_TNH.reshape(tokens, spec.num_heads * spec.head_dim))
            return self.rules.constrain(o_TD), {**cache, **kept}

    def _attend(
        self,
        q_TNH: jax.Array,
        k_TKH: jax.Array,
        v_TKH: jax.Array,
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
    ) -> tuple[jax.Array, Arrays]:
        """Cache write and attention, each device on its own heads."""
        backend, spec, rules = self.build.backends.attention, self.spec, self.rules
        sinks_N = None if self.sinks is None else self.sinks[...]

        def local(
            q: jax.Array, k: jax.Array, v: jax.Array, sinks: jax.Array | None, cache: Arrays, batch: LayerBatch
        ) -> tuple[jax.Array, Arrays]:
            return backend.write_and_attend(
                q, k, v, cache, batch, scale=spec.scale, window=spec.window, softcap=spec.softcap, sinks_N=sinks
            )

        heads, kv_heads = rules.spec((None, "q_heads", None)), rules.spec((None, "kv_heads", None))
        kept = cache_partition(self.build, spec, batch.meta.page_size)
        island = jax.shard_map(
            local,
            mesh=rules.mesh,
            in_specs=(heads, kv_heads, kv_heads, rules.spec(("q_heads",)), kept, PartitionSpec()),
            out_specs=(heads, kept),
            check_vma=False,
        )
        own = {name: cache[name] for name in kept}
        result: tuple[jax.Array, Arrays] = island(q_TNH, k_TKH, v_TKH, sinks_N, own, batch)
        return result
