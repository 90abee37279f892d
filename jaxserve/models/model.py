"""A loaded model as data: its structure and a flat list of arrays, and the two pure functions that run it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jaxserve.models.cache import Cache
from jaxserve.models.config import ModelConfig, layer_groups
from jaxserve.models.decoder import Decoder, LayerLoop
from jaxserve.models.kernels.backend import AttentionBackend
from jaxserve.models.metadata import StepMeta
from jaxserve.models.moe import ExpertLinear
from jaxserve.models.parameters import Build, Init, Linear
from jaxserve.models.sharding import ShardingRules

LeafKey = tuple[str, tuple[int, ...] | None]


@dataclass(frozen=True)
class GraphDef:
    """Structure of a decoder without its parameters. Hashable: a static argument, or closed over."""

    module: nnx.GraphDef[Decoder]
    tree: jax.tree_util.PyTreeDef

    def decoder(self, leaves: list[jax.Array]) -> Decoder:
        """The module with these parameters."""
        decoder: Decoder = nnx.merge(self.module, jax.tree.unflatten(self.tree, leaves))
        return decoder


@dataclass(frozen=True)
class Leaf:
    """One parameter array: what it is, and which layers it holds."""

    name: str
    """Path without the layer: 'attention.q_proj.weight', 'embed'."""
    layers: tuple[int, ...] | None
    """Layer numbers: stacked in this order when `stacked`, else one; None outside the layers."""
    stacked: bool
    value: jax.ShapeDtypeStruct
    """Shape, dtype and sharding."""
    init: Init

    @property
    def key(self) -> LeafKey:
        """What tells leaves of a model apart."""
        return self.name, self.layers


@dataclass(frozen=True)
class Blueprint:
    """A model before it has values."""

    config: ModelConfig
    graphdef: GraphDef
    leaves: tuple[Leaf, ...]
    """In the order of the flat list of arrays."""
    rules: ShardingRules

    def coded(self) -> frozenset[LeafKey]:
        """Keys of the leaves that hold codes of quantised weights; their scales are other leaves."""
        keys = {leaf.key for leaf in self.leaves}
        return frozenset((name, layers) for name, layers in keys if (f"{name}_scale", layers) in keys)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run."""

    config: ModelConfig
    graphdef: GraphDef
    leaves: list[jax.Array]
    """All parameters, flat, sharded over `mesh`."""
    mesh: Mesh
    dtype: str
    layer_loop: LayerLoop
    report: tuple[str, ...] = ()
    """What could not be split over the mesh as intended."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ForwardOutput:
    """What `forward` returns."""

    hidden_TD: jax.Array
    """Last hidden states after the final norm, in the model's dtype; padding rows are finite, without meaning."""
    cache: dict[str, jax.Array]
    """The cache with this step's keys and values."""
    routing: jax.Array | None = None
    """Routed experts, int32 [MoE layers, T, experts per token], best first; None for dense models."""


def plan_model(
    config: ModelConfig, *, mesh: Mesh, dtype: str, layer_loop: LayerLoop, attention_backend: str
) -> Blueprint:
    """Structure, shapes and shardings of a model; touches no device."""
    rules = ShardingRules.derive(config, mesh)
    build = Build(rules, AttentionBackend(attention_backend), dtype, config.norm_eps, config.norm_offset)
    decoder = Decoder(build, config, layer_loop)
    _hold_weights(decoder)
    module, state = nnx.split(decoder)
    groups = layer_groups(config, layer_loop)
    leaves = []
    for path, variable in nnx.to_flat_state(state):
        layers, stacked, name = None, False, path
        if path[0] == "groups":
            group, member, name = groups[int(str(path[1]))], int(str(path[3])), path[4:]
            layers = tuple(group.layer(repeat, member) for repeat in range(group.repeats))
            stacked = group.repeats > 1
        abstract, metadata = variable.get_value(), variable.get_metadata()
        sharding = rules.sharding(metadata["out_sharding"])
        value = jax.ShapeDtypeStruct(abstract.shape, abstract.dtype, sharding=sharding)
        leaves.append(Leaf(".".join(map(str, name)), layers, stacked, value, metadata["init"]))
    return Blueprint(config, GraphDef(module, jax.tree.structure(state)), tuple(leaves), rules)


def _hold_weights(decoder: Decoder) -> None:
    """Declare the projections' weights in the formats that the layers' specs say."""
    for layer in (layer for group in decoder.groups for layer in group.layers):
        for path, module in nnx.iter_modules(layer):
            if isinstance(module, Linear | ExpertLinear) and ".".join(map(str, path)) not in layer.spec.unquantised:
                module.hold(layer.spec.weights)


def abstract_leaves(
    config: ModelConfig, *, mesh: Mesh, dtype: str, layer_loop: LayerLoop, attention_backend: str = "blocked"
) -> tuple[GraphDef, list[jax.ShapeDtypeStruct]]:
    """Structure and abstract parameters with shardings, to compile ahead of time, also for absent devices."""
    plan = plan_model(config, mesh=mesh, dtype=dtype, layer_loop=layer_loop, attention_backend=attention_backend)
    return plan.graphdef, [leaf.value for leaf in plan.leaves]


def forward(
    graphdef: GraphDef, leaves: list[jax.Array], tokens_T: jax.Array, cache: Cache, meta: StepMeta
) -> ForwardOutput:
    """Run one step's packed tokens (ids in [0, V)) through the model. Pure; jit it with `cache` donated."""
    return ForwardOutput(*graphdef.decoder(leaves).hidden(tokens_T, cache, meta))


def unembed(graphdef: GraphDef, leaves: list[jax.Array], hidden_RD: jax.Array) -> jax.Array:
    """Hidden states of `forward` -> logits, float32 [R, V], whole on every device."""
    rows = hidden_RD.shape[0]
    if rows == 1:  # a single row is multiplied by another routine than several, with other bits
        hidden_RD = jnp.pad(hidden_RD, ((0, 1), (0, 0)))
    return graphdef.decoder(leaves).logits(hidden_RD)[:rows]
