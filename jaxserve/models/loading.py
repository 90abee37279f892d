"""From a model directory to a `LoadedModel`: every shard is read from the memory-mapped file straight into its place.

Nothing is held twice: a parameter's shard is converted on its way to the device, layer by layer where layers are
stacked.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from jaxserve.models.bucket import is_remote, open_remote
from jaxserve.models.checkpoint import open_checkpoint
from jaxserve.models.config import ModelConfig
from jaxserve.models.config_file import load_config
from jaxserve.models.gguf.codes import has_blocks
from jaxserve.models.gguf.directory import has_gguf, open_listed
from jaxserve.models.gguf.pieces import hold_as_stored, match_gguf
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_quantization import read_stored_weights
from jaxserve.models.kernels.choice import Backends, preferred_backends
from jaxserve.models.layout import LayerLoop
from jaxserve.models.memory_order import on_device, placement
from jaxserve.models.model import Blueprint, Leaf, LoadedModel, LoadedTower, plan_model
from jaxserve.models.orbax_store import has_store, match_arrays, open_store
from jaxserve.models.parameters import Init
from jaxserve.models.recoding import recode
from jaxserve.models.registry import find_family
from jaxserve.models.sharding import make_mesh
from jaxserve.models.sources import Pieces, match_tensors
from jaxserve.models.weight_choice import Quantize, WeightMode, choose_weights, suit_kernels

_ALIGNMENT = 64
"""Bytes."""
_FACTORS = frozenset(
    [f"attention.{part}_proj.weight" for part in "qkvo"]
    + [f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
    + ["embed", "lm_head"]
)
"""Leaves that are used in products through the matmul backend alone; rows of the embedding are widened besides."""
Spans = tuple[tuple[int, int], ...]
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while parameters are loaded."""


def load_model(
    model_dir: Path,
    *,
    mesh: Mesh | None = None,
    dtype: str = "float32",
    layer_loop: LayerLoop = "unroll",
    backends: Backends | None = None,
    weights: WeightMode = "keep",
    quantize: Quantize | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load a directory in hub layout, or one that `convert` wrote, onto a mesh (None = one device).

    `backends` are the kernels that it runs; None = those that the devices prefer.

    Raises:
        ModelLoadError: see `load_config` and `choose_weights`; or tensors are missing, left over, of another shape or
            type, or a file is damaged.
    """
    model_dir = Path(model_dir)
    mesh = make_mesh((1, 1, 1)) if mesh is None else mesh
    config = choose_weights(load_config(model_dir), weights, quantize)
    backends = backends or preferred_backends(mesh, config.layers)
    config = as_held(config, model_dir, weights, quantize, mesh, backends)
    plan = _plan(config, mesh, dtype, layer_loop, backends)
    sources = find_pieces(plan, model_dir)
    planned = [_as_stored(plan, leaf, source) for leaf, source in zip(plan.leaves, sources, strict=True)]
    counter = _Counter(sum(_num_bytes(leaf) for leaf in planned), progress)
    leaves: list[jax.Array] = []
    for leaf, source in zip(planned, sources, strict=True):
        jax.block_until_ready(leaves[-2:-1])  # one leaf is on its way while the next is read
        leaves.append(_load_leaf(leaf, source, counter))
    return _loaded(plan, leaves, dtype, layer_loop)


def as_held(
    config: ModelConfig, model_dir: Path, weights: WeightMode, quantize: Quantize | None, mesh: Mesh, backends: Backends
) -> ModelConfig:
    """The configuration of `choose_weights` with its weights as these kernels want them.

    Blocks of a GGUF file stay as they are where kernels multiply them.
    """
    config = suit_kernels(config, backends.matmul.blocks_in_experts)
    tiles = backends.matmul.tiles and mesh.size == 1 and weights == "keep" and quantize is None
    return hold_as_stored(config, open_listed(model_dir)) if tiles and has_gguf(model_dir) else config


def _as_stored(plan: Blueprint, leaf: Leaf, source: Pieces) -> Leaf:
    """16-bit weights of products stay so beside float32 inputs where the kernels widen them: the same numbers in half
    the memory, read in half the time."""
    kinds = {piece.dtype.name for piece in source.pieces}
    whole = plan.backends.matmul.widens and plan.rules.mesh.size == 1 and leaf.name in _FACTORS
    if not whole or leaf.value.dtype != jnp.float32 or len(kinds) != 1 or not kinds <= {"bfloat16", "float16"}:
        return leaf
    value = jax.ShapeDtypeStruct(leaf.value.shape, jnp.dtype(kinds.pop()), sharding=placement(leaf.value))
    return replace(leaf, value=value)


def find_pieces(plan: Blueprint, model_dir: Path) -> list[Pieces]:
    """What each leaf of the plan is read from: arrays of an orbax checkpoint, tensors of GGUF or safetensors files.

    Weights that the plan holds otherwise than they are stored are dequantised or quantised while they are read.

    Raises:
        ModelLoadError: see `load_model`.
    """
    config = load_config(model_dir)
    if plan.config == config or has_blocks(plan.config):
        return _find_stored(plan, model_dir)
    stored = plan_model(config, mesh=plan.rules.mesh, dtype="float32", layer_loop="unroll")
    return recode(plan, stored, _find_stored(stored, model_dir))


def _find_stored(plan: Blueprint, model_dir: Path) -> list[Pieces]:
    """As `find_pieces`, for a plan whose weights are held as they are stored."""
    if has_store(model_dir):
        return match_arrays(plan, open_store(model_dir), model_dir)
    if has_gguf(model_dir):
        return match_gguf(plan, open_listed(model_dir))
    family, stored = find_family(plan.config.model_type), read_stored_weights(HubConfig.read(model_dir))
    tensors = open_remote(model_dir) if is_remote(model_dir) else open_checkpoint(model_dir)
    return match_tensors(plan, family, tensors, model_dir, stored)


def random_model(
    config: ModelConfig,
    *,
    mesh: Mesh | None = None,
    dtype: str = "float32",
    layer_loop: LayerLoop = "unroll",
    backends: Backends | None = None,
    seed: int = 0,
) -> LoadedModel:
    """A model with random parameters, made on the devices; the values depend on neither mesh nor layer loop."""
    plan = _plan(config, mesh, dtype, layer_loop, backends)
    key = jax.random.key(seed)
    leaves = []
    for leaf in plan.leaves:
        keys = jax.random.fold_in(key, zlib.crc32(leaf.name.encode()) & 0x7FFFFFFF)
        layers = jnp.asarray(leaf.layers if leaf.layers is not None else (0,), jnp.uint32)
        draw = _draw_function(leaf.init, leaf.value.shape, leaf.value.dtype.name, leaf.stacked, placement(leaf.value))
        leaves.append(draw(keys, layers))
    return _loaded(plan, leaves, dtype, layer_loop)


def _plan(
    config: ModelConfig, mesh: Mesh | None, dtype: str, layer_loop: LayerLoop, backends: Backends | None
) -> Blueprint:
    mesh = make_mesh((1, 1, 1)) if mesh is None else mesh
    return plan_model(config, mesh=mesh, dtype=dtype, layer_loop=layer_loop, backends=backends)


def _loaded(plan: Blueprint, leaves: list[jax.Array], dtype: str, layer_loop: LayerLoop) -> LoadedModel:
    rules, split = plan.rules, len(leaves) - plan.tower_leaves
    tower = None if plan.tower is None else LoadedTower(plan.tower, leaves[split:])
    return LoadedModel(
        plan.config,
        plan.graphdef,
        leaves[:split],
        rules.mesh,
        dtype,
        layer_loop,
        plan.backends,
        rules.remarks,
        tower,
        plan.num_parameters,
    )


@lru_cache(maxsize=64)
def _draw_function(
    init: Init, shape: tuple[int, ...], dtype: str, stacked: bool, sharding: Any
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Jitted draw of one parameter, each layer from its own key; kept, because many parameters look alike."""

    def draw(key: jax.Array, layers: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, layers)
        if stacked:
            return jax.vmap(lambda one: init(one, shape[1:], dtype))(keys)
        return init(keys[0], shape, dtype)

    return jax.jit(draw, out_shardings=sharding)


def _num_bytes(leaf: Leaf) -> int:
    return int(math.prod(leaf.value.shape) * leaf.value.dtype.itemsize)


@dataclass
class _Counter:
    """Bytes of parameters loaded so far."""

    total: int
    progress: Progress | None
    done: float = 0.0

    def add(self, count: float) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(min(round(self.done), self.total), self.total)


def _load_leaf(leaf: Leaf, source: Pieces, counter: _Counter) -> jax.Array:
    """Read one parameter shard by shard; devices that hold the same shard share what was read."""
    shape, dtype, sharding = leaf.value.shape, leaf.value.dtype, leaf.value.sharding
    if sharding is None:
        raise ValueError("a planned leaf carries its sharding")
    devices: dict[Spans, list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        devices.setdefault(_spans(index, shape), []).append(device)
    shard_bytes = math.prod(sharding.shard_shape(shape)) * dtype.itemsize
    weight = _num_bytes(leaf) / (len(devices) * shard_bytes)
    shards: list[jax.Array] = []
    for spans, holders in devices.items():
        host = _aligned_empty(tuple(stop - start for start, stop in spans), dtype)
        source.read(tuple(slice(*span) for span in spans), host, lambda count: counter.add(weight * count))
        jax.block_until_ready(shards)  # at most two shards are on the way
        shards += [jax.device_put(host, on_device(leaf.value, device)) for device in holders]
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def _spans(index: tuple[slice, ...] | None, shape: tuple[int, ...]) -> Spans:
    """Begin and end on each axis of a shard (None = the whole array)."""
    index = index or (slice(None),) * len(shape)
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array that begins at a multiple of 64 bytes: jax's CPU backend takes such memory over, other it copies."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
