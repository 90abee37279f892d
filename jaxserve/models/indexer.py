"""The lightning indexer of DeepSeek sparse attention (DeepSeek-V3.2, 2025): queries, head weights and keys."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx

from jaxserve.models.config import IndexerSpec
from jaxserve.models.kernels.attention_backend import IndexQueries, Selection
from jaxserve.models.norm import LayerNorm
from jaxserve.models.parameters import Build, Linear
from jaxserve.models.rope import RopeTable, rotate

_NORM_EPS = 1e-6


class Indexer(nnx.Module):
    """Score of position s for a token: sum over index heads of weight * relu(query . key_s).

    Parameters are whole on every device: the devices share out tokens. Splitting the heads would cost an all-reduce of
    scores as long as the context.
    """

    def __init__(self, build: Build, spec: IndexerSpec, width: int, q_rank: int) -> None:
        self.q_proj = Linear(build, q_rank, spec.num_heads * spec.head_dim, (None, None))
        self.k_proj = Linear(build, width, spec.head_dim, (None, "embed"))
        self.k_norm = LayerNorm(build, spec.head_dim, _NORM_EPS)
        self.weights_proj = Linear(replace(build, dtype="float32"), width, spec.num_heads, (None, "embed"))
        self.spec = spec

    def __call__(self, x_TD: jax.Array, q_latent_TQ: jax.Array, table: RopeTable) -> Selection:
        """[T, D] and the queries' latents [T, Q] -> what to ask, and the keys to cache."""
        spec = self.spec
        q_TIH = self.q_proj(q_latent_TQ).reshape(-1, spec.num_heads, spec.head_dim)
        k_T1H = self.k_norm(self.k_proj(x_TD))[:, None]
        q_TIH, k_T1H = (rotate(part, table, interleaved=spec.interleaved) for part in (q_TIH, k_T1H))
        weights_TI = self.weights_proj(x_TD.astype(jnp.float32)) * (spec.num_heads * spec.head_dim) ** -0.5
        return Selection(IndexQueries(q_TIH, weights_TI), k_T1H[:, 0])
