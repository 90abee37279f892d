"""What is known of a model once its devices are: mesh and kernels. Nothing of its weights is read, nothing compiled."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from jaxserve.described import Described, describe
from jaxserve.engine import gpu
from jaxserve.engine.machine import Machine, check_machine
from jaxserve.engine.sizing import check_sizes
from jaxserve.models.config import ModelConfig
from jaxserve.models.kernels.choice import Backends, choose_backends
from jaxserve.models.kernels.target import Target
from jaxserve.models.sharding import derive_mesh_shape
from jaxserve.models.weight_choice import choose_weights
from jaxserve.options import EngineOptions

MeshShape = tuple[int, int, int]


@dataclass(frozen=True)
class Prepared(Described):
    """A model of which all is known and checked that can be without reading a weight."""

    mesh_shape: MeshShape
    backends: Backends


def prepare(options: EngineOptions) -> Prepared:
    """Reads the model's small files and checks every option against them and the devices, those of other hosts too.

    Raises:
        ModelLoadError: the model can't be served so; one clear sentence.
    """
    return fit(describe(options, jax.process_count()))


def fit(described: Described) -> Prepared:
    """Checks the options against this machine's devices.

    Raises:
        ModelLoadError: see `prepare`.
    """
    options, config = described.options, described.model_config
    gpu.prepare(options.device_memory)
    device = jax.devices()[0]
    check_sizes(options, config.max_position_embeddings, device.platform)
    check_machine(options, Machine(device.platform, len(jax.devices()), jax.process_count()))
    shape = mesh_shape(config, options.mesh)
    layers = choose_weights(config, options.weights, options.quantize).layers
    backends = choose_backends(options.attention, options.matmul_on(device.platform), Target.of(device), layers)
    return Prepared(**vars(described), mesh_shape=shape, backends=backends)


def mesh_shape(config: ModelConfig, wanted: MeshShape | int) -> MeshShape:
    """The axes of the mesh that `--mesh` asks for; several hosts use all devices that they have."""
    if jax.process_count() > 1 and wanted == 1:
        wanted = len(jax.devices())
    return derive_mesh_shape(config, wanted) if isinstance(wanted, int) else wanted
