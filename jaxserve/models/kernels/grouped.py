"""Grouped matmul: every token through the experts it was routed to, and through no other.

Assignments (token, expert) are sorted by expert. On TPU `lax.ragged_dot_general` multiplies the sorted rows. Elsewhere
XLA's is dense, its work grows with the number of experts; so a loop with a dynamic trip count takes blocks of rows of
one expert, and experts without tokens are not even read. The loop serves quantised experts on TPU too: it dequantises
the expert at hand, `ragged_dot_general` would need all of them dequantised at once.

Reproducibility: every block has the same static number of rows (at least two), products contract the last axis of both
operands, and a token's experts are added in the order of its routing: the bits of a token's result depend neither on
its neighbours nor on the bucket (measured on XLA:CPU, float32: rows agree for 2 to 64 rows per block).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

from jaxserve.models.activations import glu
from jaxserve.models.config import GluSpec
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.kernels.products import multiply
from jaxserve.models.reductions import ordered_sum

_FEWEST_ROWS, _MOST_ROWS = 4, 64
"""Bounds of the rows per block: small blocks waste less on a lone row, large ones read the weights less often."""


def apply_experts(
    x_TD: Float[Array, "T D"],
    weights_TA: Float32[Array, "T A"],
    experts_TA: Int32[Array, "T A"],
    experts: Experts,
    spec: GluSpec,
) -> Float32[Array, "T D"]:
    """Weighted sum over each token's A experts; see `MatmulBackend.apply_experts`."""
    count = experts.gate.weight_EOI.count
    chosen_TA = jnp.where((experts_TA >= 0) & (experts_TA < count), experts_TA, count)
    ragged = _blocked if experts.gate.weight_EOI.format is not None else _ragged
    out_TAD = lax.platform_dependent(
        x_TD,
        chosen_TA,
        experts,
        tpu=partial(ragged, spec=spec),
        cuda=partial(_blocked, spec=spec, every=True),
        rocm=partial(_blocked, spec=spec, every=True),
        default=partial(_blocked, spec=spec),
    )
    return ordered_sum([out_TAD[:, place] * weights_TA[:, place, None] for place in range(weights_TA.shape[1])])


def _blocked(
    x_TD: Float[Array, "T D"], chosen_TA: Int32[Array, "T A"], experts: Experts, spec: GluSpec, *, every: bool = False
) -> Float32[Array, "T A D"]:
    """Block after block -> float32 [T, A, D].

    `every`: also those that are empty: on a GPU the host would have to read the end of the loop.
    """
    tokens, choices = chosen_TA.shape
    total, count = tokens * choices, experts.gate.weight_EOI.count
    rows = block_rows(total, count)
    order = jnp.argsort(chosen_TA.reshape(-1), stable=True)
    starts = jnp.searchsorted(chosen_TA.reshape(-1)[order], jnp.arange(count + 1)).astype(jnp.int32)
    blocks_E = (starts[1:] - starts[:-1] + rows - 1) // rows
    ends_E = jnp.cumsum(blocks_E)

    def block(index: jax.Array, out: jax.Array) -> jax.Array:
        expert = jnp.minimum(jnp.sum(index >= ends_E), count - 1)
        places = starts[expert] + (index - ends_E[expert] + blocks_E[expert]) * rows + jnp.arange(rows)
        assigned = order[jnp.minimum(places, total - 1)]
        x_BD = x_TD[assigned // choices]
        gate_BF, up_BF = (_project(x_BD, side, expert) for side in (experts.gate, experts.up))
        y_BD = _project(glu(spec, gate_BF, up_BF), experts.down, expert, jnp.float32)
        return out.at[jnp.where(places < starts[expert + 1], assigned, total)].set(y_BD, mode="drop")

    width = experts.down.weight_EOI.outputs
    trips = min(total, total // rows + count) if every else ends_E[-1]
    out: jax.Array = lax.fori_loop(0, trips, block, jnp.zeros((total, width), jnp.float32))
    return out.reshape(tokens, choices, width)


def block_rows(assignments: int, experts: int) -> int:
    """Rows per block: about what an expert gets on average, a power of two."""
    rows = _FEWEST_ROWS
    while rows < _MOST_ROWS and rows * experts < assignments:
        rows *= 2
    return rows


def _project(
    x_BI: jax.Array, projection: Projection, expert: jax.Array, dtype: jnp.dtype | type | None = None
) -> jax.Array:
    pick = partial(lax.dynamic_index_in_dim, index=expert, keepdims=False)
    y_BO = multiply(x_BI, jax.tree.map(pick, projection.weight_EOI), dtype)
    return y_BO if projection.bias_EO is None else y_BO + projection.bias_EO[expert]


def _ragged(
    x_TD: Float[Array, "T D"], chosen_TA: Int32[Array, "T A"], experts: Experts, spec: GluSpec
) -> Float32[Array, "T A D"]:
    """All assignments at once -> float32 [T, A, D]."""
    tokens, choices = chosen_TA.shape
    count = experts.gate.weight_EOI.count
    flat = chosen_TA.reshape(-1)
    order = jnp.argsort(flat, stable=True)
    sorted_experts = flat[order]
    sizes_E = jnp.sum(flat[:, None] == jnp.arange(count), axis=0, dtype=jnp.int32)
    multiply = partial(_ragged_product, sizes_E=sizes_E, experts_N=jnp.minimum(sorted_experts, count - 1))
    x_ND = x_TD[order // choices]
    inner_NF = glu(spec, multiply(x_ND, experts.gate), multiply(x_ND, experts.up))
    y_ND = multiply(inner_NF, experts.down, dtype=jnp.float32)
    y_ND = jnp.where((sorted_experts < count)[:, None], y_ND, 0.0)
    return y_ND[jnp.argsort(order)].reshape(tokens, choices, -1)


def _ragged_product(
    x_NI: jax.Array,
    projection: Projection,
    dtype: jnp.dtype | type | None = None,
    *,
    sizes_E: jax.Array,
    experts_N: jax.Array,
) -> jax.Array:
    numbers = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((1,), (2,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[0]
    )
    y_NO = lax.ragged_dot_general(
        x_NI,
        projection.weight_EOI.values,
        sizes_E,
        numbers,
        precision=lax.Precision.HIGHEST if x_NI.dtype == jnp.float32 else None,
        preferred_element_type=dtype or x_NI.dtype,
    )
    return y_NO if projection.bias_EO is None else y_NO + projection.bias_EO[experts_N]
