"""The matmul backend for Hopper GPUs: experts and, at few tokens, gated layers by `mosaic_experts.py`, the rest by XLA.

At few tokens every expert that is chosen multiplies all of them: rows that did not choose it cost nothing where weights
are what is waited for, and nothing need be sorted. At more, assignments (token, expert) are sorted by expert and cut
into blocks of rows of one expert. What a token's experts give is added in the order of its routing. Other types than
16-bit floats go through `grouped.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels.expert_blocks import Blocks, blocks_of_all_tokens, cut_into_blocks
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.kernels.mosaic_experts import FEWEST_ROWS, MOST_ROWS, STEP, Matrices, grouped_product, supports
from jaxserve.models.kernels.mosaic_work import round_up
from jaxserve.models.kernels.target import Target
from jaxserve.models.kernels.xla import Xla
from jaxserve.models.quantization import Weight
from jaxserve.models.reductions import ordered_sum

_FEW_TOKENS = 16
"""Up to which all of them are rows of every expert."""
_GATED_TOKENS = 64
"""Up to which gate and up of a dense layer are one kernel: weights are what is waited for."""


@dataclass(frozen=True)
class MosaicMatmul(Xla):
    """See `MatmulBackend`."""

    name: str = "mosaic"
    gates: bool = True

    def refusal(self, form: WeightFormat | None, target: Target) -> str | None:
        """Other GPUs than Hopper's, quantised weights."""
        if target.platform != "gpu" or target.capability not in (None, "9.0"):
            return "needs a Hopper GPU (compute capability 9.0)"
        return None if form is None else "multiplies unquantised weights only"

    def multiply_gated(
        self, x_TI: jax.Array, gate: Weight, up: Weight, spec: GluSpec, *, local: bool = True
    ) -> jax.Array:
        """See `MatmulBackend`."""
        weights = gate.values, up.values
        if x_TI.shape[0] > _GATED_TOKENS or not local or not _serves(x_TI.dtype, *weights):
            return super().multiply_gated(x_TI, gate, up, spec, local=local)
        return _in_blocks(x_TI, [Matrices(weight[None]) for weight in weights], x_TI.dtype, spec)

    def apply_experts(
        self, x_TD: jax.Array, weights_TA: jax.Array, experts_TA: jax.Array, experts: Experts, spec: GluSpec
    ) -> jax.Array:
        """See `MatmulBackend`."""
        if not _serves(x_TD.dtype, *(side.weight_EOI.values for side in experts[:3])):
            return super().apply_experts(x_TD, weights_TA, experts_TA, experts, spec)
        blocks, x_WRD = _rows(x_TD, experts_TA, experts.gate.weight_EOI.count)
        sides = [_matrices(side) for side in (experts.gate, experts.up, experts.down)]
        where = blocks.experts_W, blocks.valid
        inner_WRF = grouped_product(x_WRD, sides[:2], *where, x_TD.dtype, spec=spec)
        y_WRD = grouped_product(inner_WRF, sides[2:], *where, x_TD.dtype)
        y_TAD = y_WRD[blocks.block_TA, blocks.place_TA].astype(jnp.float32)
        y_TAD = jnp.where(blocks.valid_TA[..., None], y_TAD, 0.0)
        return ordered_sum([y_TAD[:, place] * weights_TA[:, place, None] for place in range(weights_TA.shape[1])])


@dataclass(frozen=True)
class FixedMosaic(MosaicMatmul):
    """Every product by one kernel that adds in one order, however many rows there are: XLA splits by their number."""

    name: str = "mosaic_fixed"
    fixed: bool = True

    def multiply(
        self, x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True
    ) -> jax.Array:
        """See `MatmulBackend`; 16-bit floats that are whole on their device."""
        wanted = jnp.dtype(dtype or x_TI.dtype)
        if not local or not _can_pad(x_TI.dtype, weight.values):
            return super().multiply(x_TI, weight, dtype, local=local)
        outputs, values = weight.values.shape[0], _padded(weight.values, (0, 1))
        y_TO = _in_blocks(_padded(x_TI, (1,)), [Matrices(values[None])], wanted)
        return y_TO[:, :outputs]

    def multiply_gated(
        self, x_TI: jax.Array, gate: Weight, up: Weight, spec: GluSpec, *, local: bool = True
    ) -> jax.Array:
        """See `MatmulBackend`."""
        weights = gate.values, up.values
        if not local or not all(_can_pad(x_TI.dtype, values) for values in weights):
            return super().multiply_gated(x_TI, gate, up, spec, local=local)
        sides = [Matrices(_padded(values, (0, 1))[None]) for values in weights]
        return _in_blocks(_padded(x_TI, (1,)), sides, x_TI.dtype, spec)[:, : gate.values.shape[0]]


def _can_pad(dtype: jnp.dtype, values: jax.Array) -> bool:
    return values.dtype == dtype and dtype in (jnp.bfloat16, jnp.float16)


def _padded(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """With zeros behind, so that the kernel takes these dimensions."""
    return jnp.pad(x, [(0, -size % STEP if axis in axes else 0) for axis, size in enumerate(x.shape)])


def _in_blocks(x_TI: jax.Array, sides: Sequence[Matrices], dtype: jnp.dtype, spec: GluSpec | None = None) -> jax.Array:
    """Matrices of one expert times all rows, some at a time -> [T, O]."""
    tokens, inputs = x_TI.shape
    rows = min(MOST_ROWS, round_up(tokens, FEWEST_ROWS))
    x_WRI = jnp.pad(x_TI, ((0, -tokens % rows), (0, 0))).reshape(-1, rows, inputs)
    blocks = x_WRI.shape[0]
    y_WRO = grouped_product(
        x_WRI, sides, jnp.zeros(blocks, jnp.int32), jnp.full(1, blocks, jnp.int32), dtype, spec=spec
    )
    return y_WRO.reshape(blocks * rows, -1)[:tokens]


def _serves(dtype: jnp.dtype, *weights: jax.Array) -> bool:
    """Whether the kernel multiplies rows of this type with all of these matrices [..., O, I]."""
    return all(weight.dtype == dtype and supports(weight.shape[-1], weight.shape[-2], dtype) for weight in weights)


def _whole(x_TI: jax.Array) -> jax.Array:
    """All tokens as the rows of every block, [1, R, I]."""
    return jnp.pad(x_TI, ((0, -x_TI.shape[0] % FEWEST_ROWS), (0, 0)))[None]


def _matrices(side: Projection) -> Matrices:
    return Matrices(side.weight_EOI.values, side.bias_EO)


def _rows(x_TD: jax.Array, experts_TA: jax.Array, count: int) -> tuple[Blocks, jax.Array]:
    """How the step's assignments are multiplied, and the rows [W or 1, R, D] of the blocks."""
    if experts_TA.shape[0] <= _FEW_TOKENS:
        return blocks_of_all_tokens(experts_TA, count), _whole(x_TD)
    blocks = cut_into_blocks(experts_TA, count, block_rows(experts_TA.size, count))
    return blocks, x_TD[blocks.tokens_WR]


def block_rows(assignments: int, experts: int) -> int:
    """Rows per block: about what an expert gets on average, a power of two."""
    rows = FEWEST_ROWS
    while rows < MOST_ROWS and rows * experts < assignments:
        rows *= 2
    return rows
