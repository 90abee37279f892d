"""A loaded model as data: its structure and a flat list of arrays, and the two pure functions that run it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32

from jaxserve.models.cache import Cache
from jaxserve.models.config import ModelConfig
from jaxserve.models.decoder import Decoder
from jaxserve.models.kernels.choice import Backends, preferred_backends
from jaxserve.models.layout import LayerLoop, layer_loops
from jaxserve.models.memory_order import placed
from jaxserve.models.metadata import ImageMeta, StepMeta
from jaxserve.models.moe import ExpertLinear
from jaxserve.models.parameters import Build, Init, Linear
from jaxserve.models.quantization import packed
from jaxserve.models.sharding import ShardingRules
from jaxserve.models.vision.tower import Patches, Tower

_Module = TypeVar("_Module", Decoder, Tower)
LeafKey = tuple[str, tuple[int, ...] | None]
Path = tuple[Any, ...]


@dataclass(frozen=True)
class GraphDef(Generic[_Module]):
    """Structure of a decoder or a tower without its parameters. Hashable: a static argument, or closed over."""

    module: nnx.GraphDef[_Module]
    tree: jax.tree_util.PyTreeDef

    def merge(self, leaves: list[jax.Array]) -> _Module:
        """The module with these parameters."""
        module: _Module = nnx.merge(self.module, jax.tree.unflatten(self.tree, leaves))
        return module


@dataclass(frozen=True)
class Leaf:
    """One parameter array: what it is, and which layers it holds."""

    name: str
    """Path without the layer: 'attention.q_proj.weight', 'embed'; of a tower 'vision.blocks.mlp.up_proj.weight'."""
    layers: tuple[int, ...] | None
    """Layer numbers (of a tower: blocks): stacked in this order when `stacked`, else one; None outside the layers."""
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
    graphdef: GraphDef[Decoder]
    leaves: tuple[Leaf, ...]
    """In the order of the flat list of arrays; those of the tower come last."""
    rules: ShardingRules
    backends: Backends
    tower: GraphDef[Tower] | None = None
    tower_leaves: int = 0
    """How many of the leaves are the tower's."""

    def coded(self) -> frozenset[LeafKey]:
        """Keys of the leaves that hold codes of quantised weights; their scales are other leaves."""
        keys = {leaf.key for leaf in self.leaves}
        return frozenset((name, layers) for name, layers in keys if (f"{name}_scale", layers) in keys)

    @property
    def num_parameters(self) -> int:
        """Numbers of the model, however they are held."""
        coded = self.coded()
        scales = {(f"{name}_scale", layers) for name, layers in coded}
        sizes = {leaf.key: math.prod(leaf.value.shape) for leaf in self.leaves if leaf.key not in scales}
        return sum(size * (self._codes_in_one(key) if key in coded else 1) for key, size in sizes.items())

    def _codes_in_one(self, key: LeafKey) -> int:
        """Codes in an element of a leaf that holds them."""
        name, layers = key
        form = self.config.embed_weights if name == "embed" else self.config.head_weights
        if layers is not None and not name.startswith("vision."):
            spec = self.config.layers[layers[0]]
            form = dict(spec.formats).get(name.removesuffix(".weight"), spec.weights)
        return 1 if form is None else packed(form)


@dataclass(frozen=True)
class LoadedTower:
    """The image tower of a model."""

    graphdef: GraphDef[Tower]
    leaves: list[jax.Array]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run."""

    config: ModelConfig
    graphdef: GraphDef[Decoder]
    leaves: list[jax.Array]
    """The decoder's parameters, flat, sharded over `mesh`."""
    mesh: Mesh
    dtype: str
    layer_loop: LayerLoop
    backends: Backends
    """The kernels that `forward` runs."""
    report: tuple[str, ...] = ()
    """What could not be split over the mesh as intended."""
    tower: LoadedTower | None = None
    """Of a model that reads images."""
    num_parameters: int = 0
    """Numbers of the model, however they are held."""

    @property
    def parameters(self) -> list[jax.Array]:
        """Those of the decoder and of the tower."""
        return self.leaves + ([] if self.tower is None else self.tower.leaves)


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
    """Experts of each of the step's tokens, [MoE layers, T, experts per token], best first, in the type that
    `ModelConfig.routing_dtype` says; None for dense models."""


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
    groups = layer_loops(config, layer_loop)

    def place(path: Path) -> tuple[Path, tuple[int, ...] | None]:
        if path[0] != "groups":
            return path, None
        group, member = groups[int(str(path[1]))], int(str(path[3]))
        repeats = group.repeats if layer_loop == "scan" else 1
        return path[4:], tuple(group.layer(repeat, member) for repeat in range(repeats))

    graphdef, leaves = _taken_apart(decoder, rules, place)
    plan = Blueprint(config, graphdef, leaves, rules, backends)
    return plan if config.vision is None else _with_tower(plan, build, layer_loop)


def _with_tower(plan: Blueprint, build: Build, layer_loop: LayerLoop) -> Blueprint:
    """The plan with the tower that `config.vision` describes."""
    spec = plan.config.vision
    if spec is None:
        return plan
    tower = Tower(build, spec, plan.config.hidden_size, layer_loop)
    for path, module in nnx.iter_modules(tower):
        if isinstance(module, Linear) and path != ("patch",) and _without_block(path) not in spec.unquantised:
            module.hold(spec.weights)

    def place(path: Path) -> tuple[Path, tuple[int, ...] | None]:
        if path[0] != "blocks":
            return ("vision", *path), None
        run = tower.runs[int(str(path[1]))]
        return ("vision", "blocks", *path[2:]), tuple(range(run.first, run.first + run.count))

    graphdef, leaves = _taken_apart(tower, plan.rules, place)
    return replace(plan, leaves=plan.leaves + leaves, tower=graphdef, tower_leaves=len(leaves))


def _without_block(path: Path) -> str:
    return ".".join(("vision", *(str(part) for place, part in enumerate(path) if path[0] != "blocks" or place != 1)))


def _taken_apart(
    module: _Module, rules: ShardingRules, place: Callable[[Path], tuple[Path, tuple[int, ...] | None]]
) -> tuple[GraphDef[_Module], tuple[Leaf, ...]]:
    """A module's structure and parameters; `place` tells the name and the layers of a path."""
    structure, state = nnx.split(module)
    leaves = []
    for path, variable in nnx.to_flat_state(state):
        name, layers = place(path)
        abstract, metadata = variable.get_value(), variable.get_metadata()
        sharding = rules.sharding(metadata["out_sharding"])
        value = placed(abstract.shape, abstract.dtype, sharding, metadata.get("order"))
        stacked = layers is not None and len(layers) > 1
        leaves.append(Leaf(".".join(map(str, name)), layers, stacked, value, metadata["init"]))
    return GraphDef(structure, jax.tree.structure(state)), tuple(leaves)


def _hold_weights(decoder: Decoder) -> None:
    """Declare the projections' weights in the formats that the layers' specs say."""
    for layer in (layer for group in decoder.groups for layer in group.layers):
        for path, module in nnx.iter_modules(layer):
            name, own = ".".join(map(str, path)), dict(layer.spec.formats)
            if isinstance(module, Linear | ExpertLinear) and name not in layer.spec.unquantised:
                module.hold(own.get(name, layer.spec.weights))


def abstract_leaves(
    config: ModelConfig, *, mesh: Mesh, dtype: str, layer_loop: LayerLoop, backends: Backends | None = None
) -> tuple[GraphDef[Decoder], list[jax.ShapeDtypeStruct]]:
    """Structure and abstract parameters with shardings, to compile ahead of time, also for absent devices."""
    plan = plan_model(config, mesh=mesh, dtype=dtype, layer_loop=layer_loop, backends=backends)
    return plan.graphdef, [leaf.value for leaf in plan.leaves[: len(plan.leaves) - plan.tower_leaves]]


def abstract_tower(
    config: ModelConfig, *, mesh: Mesh, dtype: str, layer_loop: LayerLoop
) -> tuple[GraphDef[Tower], list[jax.ShapeDtypeStruct]]:
    """As `abstract_leaves`, of the image tower.

    Raises:
        ValueError: the model has none.
    """
    plan = plan_model(config, mesh=mesh, dtype=dtype, layer_loop=layer_loop)
    if plan.tower is None:
        raise ValueError(f"a {config.model_type} reads no images")
    return plan.tower, [leaf.value for leaf in plan.leaves[len(plan.leaves) - plan.tower_leaves :]]


def forward(
    graphdef: GraphDef[Decoder],
    leaves: list[jax.Array],
    tokens_T: Int32[Array, " T"],
    cache: Cache,
    meta: StepMeta,
    token_N: Int32[Array, " N"],
    images: ImageMeta | None = None,
) -> ForwardOutput:
    """Run one step's packed tokens through the model. Pure; jit it with `cache` donated.

    Args:
        graphdef: structure of the model.
        leaves: its parameters.
        tokens_T: token ids in [0, V).
        cache: as `init_cache` made it.
        meta: where the tokens belong.
        token_N: int32, the packed tokens in [0, T) whose logits are wanted.
        images: what images bring in; None for a model of text, or where there are none.
    """
    decoder = graphdef.merge(leaves)
    hidden_TD, kept, routing = decoder.hidden(tokens_T, cache, meta, images)
    hidden_ND = hidden_TD[token_N]
    few = tokens_T.shape[0] < token_N.shape[0]
    logits_NV = decoder.logits(hidden_TD)[token_N] if few else decoder.logits(hidden_ND)
    if routing is not None:
        routing = routing.astype(decoder.config.routing_dtype)
    return ForwardOutput(kept, hidden_TD, hidden_ND, logits_NV, routing)


def embed_image(graphdef: GraphDef[Tower], leaves: list[jax.Array], image: Patches) -> jax.Array:
    """An image through its tower: rows of `ImageMeta.pool`, [M, (1 + taps) * D], in the order of its patches."""
    with jax.named_scope("vision"):
        return graphdef.merge(leaves)(image)


def unembed(
    graphdef: GraphDef[Decoder], leaves: list[jax.Array], hidden_ND: Float[Array, "N D"]
) -> Float32[Array, "N V"]:
    """Hidden states of `forward` -> logits, float32 [N, V], whole on every device."""
    return graphdef.merge(leaves).logits(hidden_ND)
