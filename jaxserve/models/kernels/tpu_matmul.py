"""The matmul backend for TPUs: what XLA:TPU must be told so that weights are read once, where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxserve.models.activations import glu
from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels.expert_blocks import Blocks, cut_into_blocks
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.kernels.products import contract
from jaxserve.models.kernels.target import Target
from jaxserve.models.kernels.tpu_experts import grouped_product
from jaxserve.models.kernels.xla import Xla
from jaxserve.models.quantization import Weight, decode
from jaxserve.models.reductions import ordered_sum

_FEWEST_ROWS, _MOST_ROWS = 16, 128
"""Of a block: whole tiles of 16-bit numbers; more than 128 would not be faster."""
_WAVE_BYTES = 16 << 20
"""Inputs of experts that lie in HBM at a time, about; an expert that is cut between two waves is read twice."""


@dataclass(frozen=True)
class TpuMatmul(Xla):
    """See `MatmulBackend`."""

    name: str = "pallas_tpu"
    stacked_experts: bool = True
    blocks_in_experts: bool = True
    interpret: bool = False
    """Without a TPU, slowly: for tests."""

    def refusal(self, form: WeightFormat | None, target: Target) -> str | None:
        """Other devices than TPUs."""
        return None if target.platform == "tpu" or self.interpret else "needs a TPU"

    def settle(self, y_TO: jax.Array) -> jax.Array:
        """Cut into heads at once, the weight would be reshaped instead, and copied in each layer (3 times as slow)."""
        settled: jax.Array = lax.optimization_barrier(y_TO)
        return settled

    def multiply(
        self, x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True
    ) -> jax.Array:
        """See `MatmulBackend`. Where chips add parts of a product, they send each other the type of x, not float32."""
        form, wanted = weight.format, dtype or x_TI.dtype
        if local or form is None or form.code != "int8" or jnp.dtype(wanted) != x_TI.dtype:
            return super().multiply(x_TI, weight, dtype, local=local)
        y_TO = contract(x_TI, decode(weight.values, form, x_TI.dtype))
        scaled: jax.Array = (y_TO.astype(jnp.float32) * weight.scale).astype(wanted)
        return scaled

    def apply_experts(
        self, x_TD: jax.Array, weights_TA: jax.Array, experts_TA: jax.Array, experts: Experts, spec: GluSpec
    ) -> jax.Array:
        """See `MatmulBackend`; experts of one layer alone are a stack of one.

        Where inputs of all assignments would be many, blocks are taken in waves, as many as this device's experts
        need. A token's experts are added by their numbers: so no wave's end changes a bit.
        """
        experts = experts if experts.layer is not None else _stack(experts)
        order_TA = jnp.argsort(experts_TA, axis=1)
        experts_TA, weights_TA = (jnp.take_along_axis(x, order_TA, axis=1) for x in (experts_TA, weights_TA))
        count = experts.gate.weight_EOI.count
        rows = block_rows(experts_TA.size, count)
        blocks = cut_into_blocks(experts_TA, count, rows)
        add = partial(self._add, x_TD, weights_TA, experts, spec)
        total_TD = jnp.zeros(x_TD.shape, jnp.float32)
        wave = wave_blocks(rows, x_TD.shape[1] * x_TD.dtype.itemsize)
        if wave >= blocks.experts_W.shape[0]:
            return add(blocks, total_TD)
        waves = (blocks.valid[0] + wave - 1) // wave
        padded = blocks.padded(wave)
        summed: jax.Array = lax.fori_loop(0, waves, lambda n, total: add(padded.part(n * wave, wave), total), total_TD)
        return summed

    def _add(
        self,
        x_TD: jax.Array,
        weights_TA: jax.Array,
        experts: Experts,
        spec: GluSpec,
        blocks: Blocks,
        total_TD: jax.Array,
    ) -> jax.Array:
        """The sum with what these blocks give."""
        project = partial(self._project, experts=experts, blocks=blocks)
        x_WRD = x_TD[blocks.tokens_WR]
        gate, up = (project(x_WRD, side, x_TD.dtype) for side in (experts.gate, experts.up))
        y_WRD = project(glu(spec, gate, up), experts.down, x_TD.dtype)

        def chosen(place: int) -> jax.Array:
            y_TD = y_WRD[blocks.block_TA[:, place], blocks.place_TA[:, place]].astype(jnp.float32)
            return jnp.where(blocks.valid_TA[:, place, None], y_TD * weights_TA[:, place, None], 0.0)

        return ordered_sum([total_TD, *(chosen(place) for place in range(weights_TA.shape[1]))])

    def _project(
        self, x_WRI: jax.Array, side: Projection, dtype: DTypeLike, *, experts: Experts, blocks: Blocks
    ) -> jax.Array:
        layer = jnp.asarray(experts.layer, jnp.int32).reshape(1)
        y_WRO = grouped_product(
            x_WRI, side.weight_EOI, layer, blocks.experts_W, blocks.valid, dtype, interpret=self.interpret
        )
        return y_WRO if side.bias_EO is None else y_WRO + side.bias_EO[blocks.experts_W][:, None]


def wave_blocks(rows: int, bytes_of_one: int) -> int:
    """Blocks whose inputs lie in HBM at a time."""
    return max(1, _WAVE_BYTES // (rows * bytes_of_one))


def block_rows(assignments: int, experts: int) -> int:
    """Rows per block: about what an expert gets on average, a power of two."""
    rows = _FEWEST_ROWS
    while rows < _MOST_ROWS and rows * experts < assignments:
        rows *= 2
    return rows


def _stack(experts: Experts) -> Experts:
    def stacked(side: Projection) -> Projection:
        return side._replace(weight_EOI=jax.tree.map(lambda array: array[None], side.weight_EOI))

    return Experts(stacked(experts.gate), stacked(experts.up), stacked(experts.down), jnp.int32(0))
