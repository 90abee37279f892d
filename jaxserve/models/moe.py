"""Mixture of experts (Shazeer et al. 2017): a router picks a few gated layers for each token.

Experts are spread over the whole mesh where their number allows, their width over what is left. Every device sees all
tokens, applies the experts it holds and its part of the shared expert; one all-reduce adds the parts.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from jaxserve.models.config import MlpSpec, MoeSpec, WeightFormat
from jaxserve.models.kernels.matmul_backend import Experts, MatmulBackend, Projection
from jaxserve.models.kernels.products import contract
from jaxserve.models.memory_order import TURNED
from jaxserve.models.mlp import GatedMlp
from jaxserve.models.parameters import ZEROS, Build, Init, partition
from jaxserve.models.quantization import Weight, align_blocks
from jaxserve.models.reductions import ordered_sum, row_sum

_TINY = 1e-20
"""Keeps the sum of selected scores away from zero (as DeepSeek-V3 does)."""


class Router(nnx.Module):
    """Scores every expert for every token in float32 and selects."""

    def __init__(self, build: Build, spec: MoeSpec, width: int) -> None:
        router, count = spec.router, spec.num_experts
        self.weight = build.parameter((count, width), (None, "embed"), Init("normal", width**-0.5))
        self.bias = build.parameter((count,), (None,), ZEROS) if router.bias else None
        self.selection_bias = (
            build.parameter((count,), (None,), ZEROS, dtype="float32") if router.selection_bias else None
        )
        self.spec, self.top_k, self.build = router, spec.top_k, build

    def __call__(self, x_TD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[T, D] -> weights float32 [T, top_k] and expert numbers int32 [T, top_k], best first."""
        spec = self.spec
        scores_TE = self._multiply(x_TD, self.weight[...])
        if self.bias is not None:
            scores_TE = scores_TE + self.bias[...]
        if spec.scoring == "softmax":
            scores_TE = jnp.exp(scores_TE - jnp.max(scores_TE, axis=-1, keepdims=True))
            if not spec.normalise:  # the sum over all experts cancels when the selected are normalised
                scores_TE = scores_TE / row_sum(scores_TE)
        elif spec.scoring == "sigmoid":
            scores_TE = jax.nn.sigmoid(scores_TE)
        experts_TA = self._select(scores_TE)
        weights_TA = jnp.take_along_axis(scores_TE, experts_TA, axis=-1)
        if spec.scoring == "softmax_selected":
            weights_TA = jnp.exp(weights_TA - weights_TA[:, :1])
        if spec.normalise or spec.scoring == "softmax_selected":
            weights_TA = weights_TA / (ordered_sum(jnp.split(weights_TA, self.top_k, axis=1)) + _TINY)
        return weights_TA * spec.scaling, experts_TA

    def _multiply(self, x_TD: jax.Array, weight_ED: jax.Array) -> jax.Array:
        """Every expert's score before the activation, float32 [T, E]."""
        matmul, local = self.build.backends.matmul, self.build.rules.mesh.size == 1
        if matmul.fixed:
            return matmul.multiply(x_TD, Weight(weight_ED), jnp.float32, local=local)
        return contract(x_TD, weight_ED, jnp.float32)

    def _select(self, scores_TE: jax.Array) -> jax.Array:
        """The best experts, of the best groups where there are groups."""
        spec = self.spec
        if self.selection_bias is not None:
            scores_TE = scores_TE + self.selection_bias[...]
        if spec.groups > 1:
            tokens, count = scores_TE.shape
            scores_TGM = scores_TE.reshape(tokens, spec.groups, count // spec.groups)
            best_TG = jnp.sum(lax.top_k(scores_TGM, min(spec.group_best, scores_TGM.shape[-1]))[0], axis=-1)
            _, groups_TJ = lax.top_k(best_TG, spec.top_groups)
            kept_TG = jnp.any(groups_TJ[:, :, None] == jnp.arange(spec.groups), axis=1)
            scores_TE = jnp.where(kept_TG[:, :, None], scores_TGM, -jnp.inf).reshape(tokens, count)
        return lax.top_k(scores_TE, self.top_k)[1].astype(jnp.int32)


class ExpertLinear(nnx.Module):
    """One projection of all experts, stored [E, out, in], perhaps quantised."""

    def __init__(self, build: Build, spec: MoeSpec, inputs: int, outputs: int, axes: tuple[str, str]) -> None:
        self.build, self.shape, self.axes = build, (spec.num_experts, outputs, inputs), ("expert", *axes)
        self.bias = build.parameter(self.shape[:2], self.axes[:2], ZEROS) if spec.bias else None
        self.hold(None)

    def hold(self, form: WeightFormat | None) -> None:
        """Declare the weight anew, held in this format."""
        self.format = form
        turned = TURNED if form is not None and form.code == "e2m1" else None
        self.weight, scale = self.build.weight(self.shape, self.axes, form, order=turned, scale_order=TURNED)
        self.weight_scale = nnx.data(scale)

    def arrays(self) -> Projection:
        """The parameters, to pass into a `shard_map`: blocks do not cross the edges of its shards."""
        scale = None if self.weight_scale is None else self.weight_scale[...]
        weight = align_blocks(Weight(self.weight[...], scale, self.format), self.build.rules.parts(self.axes[-1]))
        return Projection(weight, None if self.bias is None else self.bias[...])

    def partition(self, stacked: bool) -> Projection:
        """How they are split, the weights of all layers where `stacked`."""
        rules, before = self.build.rules, ("layers",) if stacked else ()
        bias = None if self.bias is None else rules.spec(self.axes[:2])
        weight = partition(rules, (*before, *self.shape), (*before, *self.axes), self.format)
        return Projection(weight, bias)  # type: ignore[arg-type]


class ExpertLayer(nnx.Module):
    """The experts' gated layers."""

    def __init__(self, build: Build, spec: MoeSpec, width: int) -> None:
        inner = ("expert_mlp", "embed")
        self.gate_proj = ExpertLinear(build, spec, width, spec.width, inner)
        self.up_proj = ExpertLinear(build, spec, width, spec.width, inner)
        self.down_proj = ExpertLinear(build, spec, spec.width, width, ("embed", "expert_mlp"))

    def arrays(self, layer: jax.Array | None) -> Experts:
        """The parameters, to pass into a `shard_map`; with `layer` the weights are those of all layers."""
        return Experts(self.gate_proj.arrays(), self.up_proj.arrays(), self.down_proj.arrays(), layer)

    def partition(self, layer: jax.Array | None) -> Experts:
        """How they are split."""
        gate, up, down = (side.partition(layer is not None) for side in (self.gate_proj, self.up_proj, self.down_proj))
        return Experts(gate, up, down, None if layer is None else PartitionSpec())  # type: ignore[arg-type]


class Moe(nnx.Module):
    """Router, experts and the shared expert."""

    def __init__(self, build: Build, spec: MoeSpec, width: int) -> None:
        self.router = Router(build, spec, width)
        self.experts = ExpertLayer(build, spec, width)
        shared = None if spec.shared_width is None else MlpSpec(spec.shared_width, spec.glu.activation)
        self.shared = None if shared is None else GatedMlp(build, shared, width)
        self.spec, self.rules, self.matmul = spec, build.rules, build.backends.matmul

    def __call__(
        self, x_TD: jax.Array, valid_T: jax.Array, layer: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[T, D] -> [T, D] and the chosen experts int32 [T, top_k]; invalid tokens pass through no routed expert.

        With `layer` the experts' weights are those of all scanned layers, and this is the one that is meant.
        """
        with jax.named_scope("router"):
            weights_TA, experts_TA = self.router(x_TD)
        with jax.named_scope("experts"):
            whole, rules = PartitionSpec(), self.rules
            mlp = self.shared
            shared = () if mlp is None else (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
            island = jax.shard_map(
                partial(_local, spec=self.spec, axes=self._axes(), matmul=self.matmul),
                mesh=rules.mesh,
                in_specs=(whole, whole, whole, self.experts.partition(layer), tuple(p.partition() for p in shared)),
                out_specs=whole,
                check_vma=False,
            )
            wanted_TA = jnp.where(valid_T[:, None], experts_TA, -1)
            parts = tuple(projection.local() for projection in shared)
            y_TD: jax.Array = island(x_TD, weights_TA, wanted_TA, self.experts.arrays(layer), parts)
            return y_TD, experts_TA

    def _axes(self) -> _Axes:
        table = dict(self.rules.table)
        return _Axes(table["expert"], table["expert_mlp"], table["mlp"] if self.shared is not None else ())


class _Axes(NamedTuple):
    """Mesh axes that the parts of a layer are split over."""

    expert: tuple[str, ...]
    width: tuple[str, ...]
    shared: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every axis that partial results are added over."""
        return tuple(dict.fromkeys(self.expert + self.width + self.shared))

    def without(self, *used: str) -> tuple[str, ...]:
        """The axes of `all` along which a part is not split but repeated."""
        return tuple(axis for axis in self.all if axis not in used)


def _local(
    x_TD: jax.Array,
    weights_TA: jax.Array,
    experts_TA: jax.Array,
    experts: Experts,
    shared: tuple[Weight, ...],
    *,
    spec: MoeSpec,
    axes: _Axes,
    matmul: MatmulBackend,
) -> jax.Array:
    """One device's part, and the sum over all devices."""
    first = lax.axis_index(axes.expert) * experts.gate.weight_EOI.count if axes.expert else 0
    if experts.down.bias_EO is not None:  # whole on every shard of the width: one of them adds it
        down = experts.down._replace(bias_EO=_once(experts.down.bias_EO, axes.width))
        experts = experts._replace(down=down)
    y_TD = matmul.apply_experts(x_TD, weights_TA, experts_TA - first, experts, spec.glu)
    y_TD = _once(y_TD, axes.without(*axes.expert, *axes.width))
    if shared:
        gate_FD, up_FD, down_DF = shared
        inner_TF = matmul.multiply_gated(x_TD, gate_FD, up_FD, spec.glu)
        y_TD = y_TD + _once(matmul.multiply(inner_TF, down_DF, jnp.float32), axes.without(*axes.shared))
    y_TD = y_TD.astype(x_TD.dtype)
    return lax.psum(y_TD, axes.all) if axes.all else y_TD


def _once(part: jax.Array, repeated: tuple[str, ...]) -> jax.Array:
    """The part on the first device along the axes that repeat it, zero on the others."""
    if not repeated:
        return part
    return jnp.where(lax.axis_index(repeated) == 0, part, jnp.zeros_like(part))
