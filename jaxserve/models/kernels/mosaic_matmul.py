"""The matmul backend for Hopper GPUs: experts by `mosaic_experts.py`, projections by XLA.

Assignments (token, expert) are sorted by expert and cut into blocks of rows of one expert; what a token's experts give
is added in the order of its routing. Other types than 16-bit floats go through `grouped.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxserve.models.activations import glu
from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.kernels.mosaic_experts import FEWEST_ROWS, MOST_ROWS, grouped_product, supports
from jaxserve.models.kernels.mosaic_work import spread
from jaxserve.models.kernels.target import Target
from jaxserve.models.kernels.xla import Xla
from jaxserve.models.reductions import ordered_sum


@dataclass(frozen=True)
class MosaicMatmul(Xla):
    """See `MatmulBackend`."""

    name: str = "mosaic"

    def refusal(self, form: WeightFormat | None, target: Target) -> str | None:
        """Other GPUs than Hopper's, quantised weights."""
        if target.platform != "gpu" or target.capability not in (None, "9.0"):
            return "needs a Hopper GPU (compute capability 9.0)"
        return None if form is None else "multiplies unquantised weights only"

    def apply_experts(
        self, x_TD: jax.Array, weights_TA: jax.Array, experts_TA: jax.Array, experts: Experts, spec: GluSpec
    ) -> jax.Array:
        """See `MatmulBackend`."""
        weight = experts.gate.weight_EOI.values
        if x_TD.dtype != weight.dtype or not supports(weight.shape[2], weight.shape[1], x_TD.dtype):
            return super().apply_experts(x_TD, weights_TA, experts_TA, experts, spec)
        blocks = cut_into_blocks(experts_TA, weight.shape[0])
        x_WRD = x_TD[blocks.tokens_WR]
        gate, up = (_project(x_WRD, side, blocks, x_TD.dtype) for side in (experts.gate, experts.up))
        inner_WRF = glu(spec, gate, up).swapaxes(1, 2)
        y_WRD = lax.optimization_barrier(_project(inner_WRF, experts.down, blocks, jnp.float32).swapaxes(1, 2))
        y_TAD = jnp.where(blocks.valid_TA[..., None], y_WRD[blocks.block_TA, blocks.place_TA], 0.0)
        return ordered_sum([y_TAD[:, place] * weights_TA[:, place, None] for place in range(weights_TA.shape[1])])


class Blocks(NamedTuple):
    """T * A assignments in at most W blocks of R rows, each of one expert."""

    experts_W: jax.Array
    """int32."""
    valid: jax.Array
    """int32 [1]: valid blocks."""
    tokens_WR: jax.Array
    """int32: token of each row; any where a block has rows to spare."""
    block_TA: jax.Array
    """int32: block of each assignment."""
    place_TA: jax.Array
    """int32: its row there."""
    valid_TA: jax.Array
    """Whether the expert is one of those at hand; block and place are any where it is not."""


def cut_into_blocks(experts_TA: jax.Array, count: int) -> Blocks:
    """Sort assignments by expert and cut them; experts that are not in [0, count) are left out."""
    tokens, choices = experts_TA.shape
    total, rows = tokens * choices, block_rows(tokens * choices, count)
    valid_TA = (experts_TA >= 0) & (experts_TA < count)
    flat = jnp.where(valid_TA, experts_TA, count).reshape(-1)
    order = jnp.argsort(flat, stable=True)
    starts = jnp.sum(flat[:, None] < jnp.arange(count + 1), axis=0, dtype=jnp.int32)
    blocks_E = (starts[1:] - starts[:-1] + rows - 1) // rows
    experts_W, number_W, block_starts = spread(blocks_E, total // rows + min(count, total))
    places_WR = (starts[experts_W] + number_W * rows)[:, None] + jnp.arange(rows)
    rank = jnp.zeros(total, jnp.int32).at[order].set(jnp.arange(total, dtype=jnp.int32))
    nearest = jnp.minimum(flat, count - 1)
    within = rank - starts[nearest]
    return Blocks(
        experts_W=experts_W,
        valid=block_starts[-1:],
        tokens_WR=order[jnp.minimum(places_WR, total - 1)] // choices,
        block_TA=jnp.minimum(block_starts[nearest] + within // rows, experts_W.shape[0] - 1).reshape(tokens, choices),
        place_TA=(within % rows).reshape(tokens, choices),
        valid_TA=valid_TA,
    )


def block_rows(assignments: int, experts: int) -> int:
    """Rows per block: about what an expert gets on average, a power of two."""
    rows = FEWEST_ROWS
    while rows < MOST_ROWS and rows * experts < assignments:
        rows *= 2
    return rows


def _project(x_WRI: jax.Array, projection: Projection, blocks: Blocks, dtype: jnp.dtype | type) -> jax.Array:
    """One projection, turned over: [W, O, R]."""
    y_WOR = grouped_product(x_WRI, projection.weight_EOI.values, blocks.experts_W, blocks.valid, jnp.dtype(dtype))
    return y_WOR if projection.bias_EO is None else y_WOR + projection.bias_EO[blocks.experts_W][:, :, None]
