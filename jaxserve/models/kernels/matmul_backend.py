"""The seam for matrix products: projections, quantised or not, and the experts of a mixture.

docs/add-a-kernel.md is the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
from jax.typing import DTypeLike

from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels.target import Target
from jaxserve.models.quantization import Weight


class Projection(NamedTuple):
    """One projection of all experts at hand."""

    weight_EOI: Weight
    bias_EO: jax.Array | None


class Experts(NamedTuple):
    """The three projections of the gated layers."""

    gate: Projection
    up: Projection
    down: Projection
    layer: jax.Array | None = None
    """int32: where the weights (not the biases) are those of all layers, [L, E, out, in], the layer that is meant."""


class MatmulBackend(Protocol):
    """Matrix products. Instances are frozen and equal when alike: compiled programs depend on them."""

    @property
    def name(self) -> str:
        """As in `choice.MATMUL`."""
        ...

    @property
    def stacked_experts(self) -> bool:
        """Whether scanned layers hand over the experts' weights of all layers, instead of copies of their own."""
        ...

    @property
    def blocks_in_experts(self) -> bool:
        """Whether FP8 with scales of blocks is multiplied as it is in experts alone (`suit_kernels`)."""
        ...

    @property
    def widens(self) -> bool:
        """Whether 16-bit weights are multiplied with float32 inputs, where arrays are whole on their device."""
        ...

    @property
    def tiles(self) -> bool:
        """Whether it multiplies weights in tiles (`WeightFormat.tiled`), where arrays are whole on their device."""
        ...

    @property
    def gates(self) -> bool:
        """Whether `multiply_gated` is more than two products and an activation."""
        ...

    @property
    def fixed(self) -> bool:
        """Whether its products add in one order for any number of rows, where XLA's do not: none may go around it."""
        ...

    def refusal(self, form: WeightFormat | None, target: Target) -> str | None:
        """Why it can't multiply weights that are held so (None = unquantised) on such devices; None = it can."""
        ...

    def multiply(
        self, x_TI: jax.Array, weight: Weight, dtype: DTypeLike | None = None, *, local: bool = True
    ) -> jax.Array:
        """x W^T, dequantising W on the way.

        Args:
            x_TI: [T, in].
            weight: [out, in].
            dtype: of the result, None = of x.
            local: every array is whole on its device; else XLA partitions the product, and no kernel of ours can run.

        Returns:
            [T, out].
        """
        ...

    def settle(self, y_TO: jax.Array) -> jax.Array:
        """A projection's result that is cut into heads next, the same numbers."""
        ...

    def multiply_all(
        self, x_TI: jax.Array, weights: Sequence[Weight], dtype: DTypeLike | None = None, *, local: bool = True
    ) -> tuple[jax.Array, ...]:
        """`multiply` with each of several weights [out, in], the outputs of which may differ in number."""
        ...

    def multiply_gated(
        self, x_TI: jax.Array, gate: Weight, up: Weight, spec: GluSpec, *, local: bool = True
    ) -> jax.Array:
        """[T, in] -> [T, out]: the gated activation of the products with two weights [out, in]."""
        ...

    def apply_experts(
        self, x_TD: jax.Array, weights_TA: jax.Array, experts_TA: jax.Array, experts: Experts, spec: GluSpec
    ) -> jax.Array:
        """Weighted sum over each token's A experts, called inside `shard_map`.

        Args:
            x_TD: inputs.
            weights_TA: float32 weight of each chosen expert.
            experts_TA: int32 numbers of the chosen experts; those that are not in [0, E) count as zero.
            experts: the projections of E experts.
            spec: their activation.

        Returns:
            float32 [T, D].
        """
        ...
