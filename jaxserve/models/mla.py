"""Multi-head latent attention (DeepSeek-V2, 2024) over a cache of latents, with or without an indexer.

Keys and values are never expanded, in decoding and in prefill alike: what would make a head's key of a latent is
applied to the query instead, and what would make its value to the weighted sum of latents. So a token's result has the
same bits on both paths, and a cached position costs one latent and one rotated key for all heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from jaxserve.models.cache import cache_partition
from jaxserve.models.config import LatentSpec
from jaxserve.models.indexer import Indexer
from jaxserve.models.kernels.attention_backend import Arrays, LayerBatch, Selection
from jaxserve.models.norm import RMSNorm
from jaxserve.models.parameters import Build, Linear
from jaxserve.models.rope import RopeTable, rotate

HEADS = "latent_heads"


class LatentAttention(nnx.Module):
    """Projections into and out of the latent space, cache write, attention, output projection (one all-reduce)."""

    def __init__(self, build: Build, spec: LatentSpec, width: int) -> None:
        own = replace(build, norm_eps=spec.norm_eps)
        queries = spec.num_heads * (spec.nope_dim + spec.rope.rotary_dim)
        if spec.q_rank is None:
            self.q_proj = Linear(build, width, queries, (HEADS, "embed"))
        else:
            self.q_a_proj = Linear(build, width, spec.q_rank, (None, "embed"))
            self.q_a_norm = RMSNorm(own, spec.q_rank)
            self.q_b_proj = Linear(build, spec.q_rank, queries, (HEADS, None))
        self.kv_a_proj = Linear(build, width, spec.head_dim, (None, "embed"))
        self.kv_a_norm = RMSNorm(own, spec.kv_rank)
        self.kv_b_proj = Linear(build, spec.kv_rank, spec.num_heads * (spec.nope_dim + spec.value_dim), (HEADS, None))
        self.o_proj = Linear(build, spec.num_heads * spec.value_dim, width, ("embed", HEADS))
        self.indexer = Indexer(build, spec.indexer, width, spec.q_rank or width) if spec.indexer is not None else None
        self.spec, self.rules, self.build = spec, build.rules, build

    def __call__(
        self, x_TD: jax.Array, cache: Mapping[str, jax.Array], batch: LayerBatch, table: RopeTable
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[T, D] -> [T, D] and the cache with this layer's new rows."""
        spec, tokens = self.spec, x_TD.shape[0]
        parts_NIC = self.kv_b_proj.matrix().reshape(spec.num_heads, spec.nope_dim + spec.value_dim, spec.kv_rank)
        with jax.named_scope("qkv"):
            q_latent_TQ = x_TD if spec.q_rank is None else self.q_a_norm(self.q_a_proj(x_TD))
            q_TNC = self._queries(q_latent_TQ, parts_NIC[:, : spec.nope_dim], table)
            rows_TC = self._latents(x_TD, table)
            selection = None if self.indexer is None else self.indexer(x_TD, q_latent_TQ, table)
        with jax.named_scope("attention"):
            o_TNC, kept = self._attend(q_TNC, rows_TC, selection, cache, batch)
        with jax.named_scope("out"):
            o_TNV = _per_head(o_TNC, parts_NIC[:, spec.nope_dim :])
            o_TD = self.o_proj(o_TNV.reshape(tokens, spec.num_heads * spec.value_dim))
            return self.rules.constrain(o_TD), {**cache, **kept}

    def _queries(self, q_latent_TQ: jax.Array, up_NIC: jax.Array, table: RopeTable) -> jax.Array:
        """Queries in the latent space, then their rotated part, [T, N, C + R]."""
        spec = self.spec
        project = self.q_proj if spec.q_rank is None else self.q_b_proj
        q_TNH = self.build.backends.matmul.settle(project(q_latent_TQ)).reshape(
            -1, spec.num_heads, spec.nope_dim + spec.rope.rotary_dim
        )
        plain, turning = q_TNH[..., : spec.nope_dim], q_TNH[..., spec.nope_dim :]
        turned = rotate(turning, table, interleaved=spec.rope.interleaved)
        return jnp.concatenate((_per_head(plain, up_NIC.swapaxes(1, 2)), turned), axis=-1)

    def _latents(self, x_TD: jax.Array, table: RopeTable) -> jax.Array:
        """What the cache keeps of each token: its normed latent, then the rotated key, [T, C + R]."""
        both = self.kv_a_proj(x_TD)
        latent, turning = both[:, : self.spec.kv_rank], both[:, None, self.spec.kv_rank :]
        turned = rotate(turning, table, interleaved=self.spec.rope.interleaved)[:, 0]
        return jnp.concatenate((self.kv_a_norm(latent), turned), axis=-1)

    def _attend(
        self,
        q_TNC: jax.Array,
        rows_TC: jax.Array,
        selection: Selection | None,
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
    ) -> tuple[jax.Array, Arrays]:
        """Cache write and attention, each device with its own heads and the whole cache."""
        backend, spec, mesh = self.build.backends.attention, self.spec, self.rules.mesh

        def local(
            q_TNC: jax.Array, rows_TC: jax.Array, selection: Selection | None, cache: Arrays, batch: LayerBatch
        ) -> tuple[jax.Array, Arrays]:
            return backend.write_and_attend_latent(
                q_TNC,
                rows_TC,
                selection,
                cache,
                batch,
                scale=spec.scale,
                value_dim=spec.kv_rank,
                top_k=None if spec.indexer is None else spec.indexer.top_k,
                axes=tuple(name for name, size in mesh.shape.items() if size > 1),
            )

        heads, whole = self.rules.spec((None, HEADS, None)), PartitionSpec()
        kept = cache_partition(self.build, spec, batch.meta.page_size)
        island = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(heads, whole, whole, kept, whole),
            out_specs=(heads, kept),
            check_vma=False,
        )
        own = {name: cache[name] for name in kept}
        result: tuple[jax.Array, Arrays] = island(q_TNC, rows_TC, selection, own, batch)
        return result


def _per_head(x_TNI: jax.Array, weight_NOI: jax.Array) -> jax.Array:
    """[T, N, in] times each head's [out, in] -> [T, N, out].

    Both operands lie in memory as they are contracted, whatever XLA:CPU would prefer for this T: then a token's bits
    do not depend on T, for two or more (measured for 1 to 20 heads); a single token gets company.
    """
    tokens = x_TNI.shape[0]
    if tokens == 1:
        x_TNI = jnp.pad(x_TNI, ((0, 1), (0, 0), (0, 0)))
    x_NTI, weight_NOI = lax.optimization_barrier((x_TNI.swapaxes(0, 1), weight_NOI))
    y_NTO = lax.dot_general(
        x_NTI,
        weight_NOI,
        (((2,), (2,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST if x_NTI.dtype == jnp.float32 else None,
        preferred_element_type=x_NTI.dtype,
    )
    return y_NTO.swapaxes(0, 1)[:tokens]
