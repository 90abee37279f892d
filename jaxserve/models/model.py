"""A loaded model as data: its structure and a flat list of arrays, and the two pure functions that run it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32

from jaxserve.models.cache import Cache
from jaxserve.models.config import ModelConfig
from jaxserve.models.decoder import Decoder
from jaxserve.models.kernels.choice import Backends, preferred_backends
from jaxserve.models.layout import LayerLoop, layer_loops
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
    backends: Backends

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
    backends: Backends
    """The kernels that `forward` runs."""
    report: tuple[str, ...] = ()
    """What could not be split over the mesh as intended."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ForwardOutput:
    """What `forward` returns."""

    cache: dict[str, jax.Array]
    """The cache with this step's keys and values."""
    hidden_TD: jax.Array
    """Last hidden states after the final norm, in the model's dtype; padding rows are finite, without meaning."""
    hidden_ND: jax.Array
    """Of the tokens whose logits are wanted."""
    logits_NV: jax.Array
    """float32, whole on every device."""
    routing: jax.Array | None = None
    """Their experts, int32 [MoE layers, N, experts per token], best first; None for dense models."""


def plan_model(
    config: ModelConfig, *, mesh: Mesh, dtype: str, layer_loop: LayerLoop, backends: Backends | None = None
) -> Blueprint:
    """Structure, shapes and shardings of a model; touches no device.

    Args:
        config: the model.
        mesh: devices, present or not.
        dtype: of parameters that are not quantised.
        layer_loop: scan over repeating layers, or unroll them.
        backends: kernels; None = those that the devices prefer.
    """
    rules = ShardingRules.derive(config, mesh)
    backends = backends or preferred_backends(mesh, config.layers)
    build = Build(rules, backends, dtype, config.norm_eps, config.norm_offset)
    decoder = Decoder(build, config, layer_loop)
    _hold_weights(decoder)
    module, state = nnx.split(decoder)
    groups = layer_loops(config, layer_loop)
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
    return Blueprint(config, GraphDef(module, jax.tree.structure(state)), tuple(leaves), rules, backends)


def _hold_weights(decoder: Decoder) -> None:
    """Declare the projections' weights in the formats that the layers' specs say."""
    for layer in (layer for group in decoder.groups for layer in group.layers):
        for path, module in nnx.iter_modules(layer):
            if isinstance(module, Linear | ExpertLinear) and ".".join(map(str, path)) not in layer.spec.unquantised:
                module.hold(layer.spec.weights)


def abstract_leaves(
    config: ModelConfig, *, mesh: Mesh, dtype: str, layer_loop: LayerLoop, backends: Backends | None = None
) -> tuple[GraphDef, list[jax.ShapeDtypeStruct]]:
    """Structure and abstract parameters with shardings, to compile ahead of time, also for absent devices."""
    plan = plan_model(config, mesh=mesh, dtype=dtype, layer_loop=layer_loop, backends=backends)
    return plan.graphdef, [leaf.value for leaf in plan.leaves]


def forward(
    graphdef: GraphDef,
    leaves: list[jax.Array],
    tokens_T: Int32[Array, " T"],
    cache: Cache,
    meta: StepMeta,
    token_N: Int32[Array, " N"],
) -> ForwardOutput:
    """Run one step's packed tokens through the model. Pure; jit it with `cache` donated.

    Args:
        graphdef: structure of the model.
        leaves: its parameters.
        tokens_T: token ids in [0, V).
        cache: as `init_cache` made it.
        meta: where the tokens belong.
        token_N: int32, the packed tokens in [0, T) whose logits are wanted.
    """
    decoder = graphdef.decoder(leaves)
    hidden_TD, kept, routing = decoder.hidden(tokens_T, cache, meta)
    hidden_ND = hidden_TD[token_N]
    logits_NV = decoder.logits(hidden_ND)
    return ForwardOutput(kept, hidden_TD, hidden_ND, logits_NV, None if routing is None else routing[:, token_N])


def unembed(graphdef: GraphDef, leaves: list[jax.Array], hidden_ND: Float[Array, "N D"]) -> Float32[Array, "N V"]:
    """Hidden states of `forward` -> logits, float32 [N, V], whole on every device."""
    return graphdef.decoder(leaves).logits(hidden_ND)
