"""Attention among the patches of one image: of all of them, or within windows that lie side by side."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxserve.models.parameters import Build, Linear
from jaxserve.models.rope import RopeTable, rotate
from jaxserve.models.vision.spec import VisionSpec

_QUERIES = 256
"""Queries whose scores are held at a time where all patches are seen: [N, 256, P] in float32."""


class VisionAttention(nnx.Module):
    """Projections, rotation, attention, output projection (one all-reduce)."""

    def __init__(self, build: Build, spec: VisionSpec) -> None:
        inner, width = ("vision_heads", None), spec.width
        self.q_proj = Linear(build, width, width, inner, bias=True)
        self.k_proj = Linear(build, width, width, inner, bias=True)
        self.v_proj = Linear(build, width, width, inner, bias=True)
        self.o_proj = Linear(build, width, width, (None, "vision_heads"), bias=True)
        self.spec, self.rules = spec, build.rules

    def __call__(self, x_PD: jax.Array, windows_P: jax.Array, table: RopeTable | None, *, windowed: bool) -> jax.Array:
        """[P, D] -> [P, D]; patches of window -1 are padding."""
        spec, rules = self.spec, self.rules
        heads = (x_PD.shape[0], spec.num_heads, spec.head_dim)
        q, k, v = (proj(x_PD).reshape(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if table is not None:
            q, k = rotate(q, table), rotate(k, table)
        q, k, v = (rules.constrain(x_PNH, None, "vision_heads", None) for x_PNH in (q, k, v))
        scale = spec.head_dim**-0.5
        if windowed and spec.window is not None:
            o_PNH = attend_nearby(q, k, v, windows_P, spec.window**2, scale)
        else:
            o_PNH = attend_everywhere(q, k, v, windows_P >= 0, scale)
        return rules.constrain(self.o_proj(o_PNH.reshape(x_PD.shape)))


def attend_everywhere(
    q_PNH: jax.Array, k_PNH: jax.Array, v_PNH: jax.Array, valid_P: jax.Array, scale: float
) -> jax.Array:
    """Softmax attention of all patches to all that are valid, some queries at a time."""
    count = q_PNH.shape[0]
    size = min(_QUERIES, count)
    padded = jnp.pad(q_PNH, ((0, -count % size), (0, 0), (0, 0)))

    def some(q_QNH: jax.Array) -> jax.Array:
        return _weighted(q_QNH, k_PNH, v_PNH, valid_P[None, :], scale)

    parts: jax.Array = lax.map(some, padded.reshape(-1, size, *q_PNH.shape[1:]))
    return parts.reshape(-1, *q_PNH.shape[1:])[:count]


def attend_nearby(
    q_PNH: jax.Array, k_PNH: jax.Array, v_PNH: jax.Array, windows_P: jax.Array, largest: int, scale: float
) -> jax.Array:
    """Softmax attention of patches to those of their own window.

    The patches of a window, `largest` at most, follow one another: a block of `largest` queries finds all of its keys
    in its own block and in the two beside it.
    """
    blocks = (-1, largest)

    def beside(x: jax.Array, fill: int) -> jax.Array:
        """[P, ...] -> [P / largest, 3 * largest, ...]."""
        edge = ((largest, largest), *((0, 0),) * (x.ndim - 1))
        cut = jnp.pad(x, edge, constant_values=fill).reshape(*blocks, *x.shape[1:])
        return jnp.concatenate((cut[:-2], cut[1:-1], cut[2:]), axis=1)

    own_BQ, near_BK = windows_P.reshape(blocks), beside(windows_P, -1)
    seen_BQK = (own_BQ[:, :, None] == near_BK[:, None, :]) & (near_BK >= 0)[:, None, :]
    queries = q_PNH.reshape(*blocks, *q_PNH.shape[1:])
    attended = jax.vmap(partial(_weighted, scale=scale))
    return attended(queries, beside(k_PNH, 0), beside(v_PNH, 0), seen_BQK).reshape(q_PNH.shape)


def _weighted(q_QNH: jax.Array, k_KNH: jax.Array, v_KNH: jax.Array, seen_QK: jax.Array, scale: float) -> jax.Array:
    """Softmax over float32 scores; rows that see nothing give zeros."""
    scores_NQK = jnp.einsum("qnh,knh->nqk", q_QNH, k_KNH, preferred_element_type=jnp.float32) * scale
    scores_NQK = jnp.where(seen_QK, scores_NQK, -jnp.inf)
    top_NQ1 = jnp.max(scores_NQK, axis=-1, keepdims=True)
    weights_NQK = jnp.exp(scores_NQK - jnp.where(jnp.isfinite(top_NQ1), top_NQ1, 0.0))
    total_NQ1 = jnp.sum(weights_NQK, axis=-1, keepdims=True)
    weights_NQK = (weights_NQK / jnp.maximum(total_NQ1, 1e-30)).astype(v_KNH.dtype)
    return jnp.einsum("nqk,knh->qnh", weights_NQK, v_KNH, preferred_element_type=jnp.float32).astype(q_QNH.dtype)
