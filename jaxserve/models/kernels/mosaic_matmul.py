"""The matmul backend for Hopper GPUs: experts by `mosaic_experts.py`, projections by XLA.

Assignments (token, expert) are sorted by expert and cut into blocks of rows of one expert; what a token's experts give
is added in the order of its routing. Other types than 16-bit floats go through `grouped.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from jaxserve.models.activations import glu
from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels.expert_blocks import Blocks, cut_into_blocks
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.kernels.mosaic_experts import FEWEST_ROWS, MOST_ROWS, grouped_product, supports
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
        rows = block_rows(experts_TA.size, weight.shape[0])
        blocks = cut_into_blocks(experts_TA, weight.shape[0], rows)
        x_WRD = x_TD[blocks.tokens_WR]
        gate, up = (_project(x_WRD, side, blocks, x_TD.dtype) for side in (experts.gate, experts.up))
        inner_WRF = glu(spec, gate, up).swapaxes(1, 2)
        y_WRD = lax.optimization_barrier(_project(inner_WRF, experts.down, blocks, jnp.float32).swapaxes(1, 2))
        y_TAD = jnp.where(blocks.valid_TA[..., None], y_WRD[blocks.block_TA, blocks.place_TA], 0.0)
        return ordered_sum([y_TAD[:, place] * weights_TA[:, place, None] for place in range(weights_TA.shape[1])])


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
