"""Compiles a model's real programs for TPUs that are not here, by libtpu.

libtpu wants to be told that there is no TPU before it is loaded: call `prepare` first, in a process of its own.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxserve.ahead.chips import Topology
from jaxserve.ahead.hlo import parse
from jaxserve.ahead.traffic import Traffic, measure
from jaxserve.config import table_columns
from jaxserve.engine import step
from jaxserve.engine.batch import Layout
from jaxserve.engine.programs import OPTIONS
from jaxserve.errors import ModelLoadError
from jaxserve.models import (
    Backends,
    ModelConfig,
    Target,
    abstract_leaves,
    cache_layout,
    cache_spec,
    choose_backends,
    derive_mesh_shape,
    make_mesh,
)
from jaxserve.models.weight_choice import suit_kernels

MeshShape = tuple[int, int, int]
_POOL = 8193
"""Embeddings of images that a device holds."""
_HOST = {2: (2, 2), 3: (2, 2, 1)}
"""Chips of one host: libtpu describes whole hosts only."""


def prepare() -> None:
    """Tells libtpu that no TPU is here, and jax to keep its executables out of the cache, where none could be read."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)


def described_devices(topology: Topology) -> list[Any]:
    """The devices of a topology, for a mesh.

    Raises:
        ModelLoadError: libtpu is missing, or knows no such topology.
    """
    from jax.experimental import topologies

    if topology.chip.platform != "tpu":
        raise ModelLoadError(f"--topology {topology}: programs are compiled ahead of time for TPUs only")
    host = _HOST[topology.chip.dims]
    shape = (*topology.shape, *(1,) * (len(host) - len(topology.shape)))
    name = "x".join(str(max(size, least)) for size, least in zip(shape, host, strict=True))
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{topology.chip.name}:{name}")
    except Exception as error:
        raise ModelLoadError(f"--topology {topology}: libtpu does not describe it: {str(error)[:200]}") from error
    described: list[Any] = list(found.devices)
    devices = [one for one in described if topology.chip.cores > 1 or one.core_on_chip == 0]
    return devices[: topology.devices]


@dataclass(frozen=True)
class Case:
    """Static shape of a step, and the context that its sequences have."""

    tokens: int
    rows: int
    context: int


@dataclass(frozen=True)
class Measured:
    """A compiled program and what it costs one device."""

    case: Case
    compiled: Any
    seconds: float
    """To lower and compile it, on this machine."""
    weight_bytes: int
    cache_bytes: int
    largest_parameter: int
    """Bytes of the largest parameter array of one device."""
    traffic: Traffic

    @cached_property
    def temporary_bytes(self) -> int:
        """HBM that the program needs besides its arguments."""
        return int(self.compiled.memory_analysis().temp_size_in_bytes)

    @cached_property
    def aliased_bytes(self) -> int:
        """Arguments that are updated in place."""
        return int(self.compiled.memory_analysis().alias_size_in_bytes)


@dataclass(frozen=True)
class Compiler:
    """A model on a mesh of absent devices."""

    config: ModelConfig
    mesh: Mesh
    backends: Backends
    page_size: int
    dtype: str = "bfloat16"

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        topology: Topology,
        *,
        mesh_shape: MeshShape | None = None,
        backends: Backends | None = None,
        page_size: int = 16,
    ) -> Compiler:
        """With the mesh and the kernels that the server would choose."""
        devices = described_devices(topology)
        mesh = make_mesh(mesh_shape or derive_mesh_shape(config, len(devices)), devices)
        backends = backends or choose_backends(None, None, Target.of(devices[0]), config.layers)
        return cls(suit_kernels(config, backends.matmul.blocks_in_experts), mesh, backends, page_size)

    def forward(self, case: Case, *, spare_pages: int = 0) -> Measured:
        """The forward program of one bucket, with a cache that holds `rows` sequences of `context` tokens.

        Args:
            case: the bucket.
            spare_pages: pages of the cache beyond those.
        """
        windows = cache_layout(self.config).windows
        columns = table_columns(windows, case.context, self.page_size, max(case.tokens, 2048))
        live = table_columns(windows, case.context, self.page_size, max(case.tokens // case.rows, 1))
        graphdef, leaves = abstract_leaves(
            self.config, mesh=self.mesh, dtype=self.dtype, layer_loop="scan", backends=self.backends
        )
        cache = cache_spec(
            self.config,
            num_pages=case.rows * sum(live) + 1 + spare_pages,
            page_size=self.page_size,
            dtype=self.dtype,
            mesh=self.mesh,
            backends=self.backends,
        )
        layout = self._layout(case, columns)
        int32 = partial(jax.ShapeDtypeStruct, dtype=np.int32, sharding=self._everywhere)
        function = jax.jit(partial(step.forward, layout, self.page_size, graphdef), donate_argnums=(1,))
        started = time.perf_counter()
        with jax.set_mesh(self.mesh):
            batch = (int32((case.rows,)), int32((layout.size,)), *self._pool())
            compiled = function.lower(leaves, cache, *batch).compile(compiler_options=OPTIONS)
        seconds = time.perf_counter() - started
        sizes = [_device_bytes(leaf) for leaf in leaves]
        return Measured(
            case,
            compiled,
            seconds,
            sum(sizes),
            sum(map(_device_bytes, cache.values())),
            max(sizes),
            measure(parse(compiled.as_text() or "")),
        )

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def _layout(self, case: Case, columns: tuple[int, ...]) -> Layout:
        """The buffer of a bucket."""
        vision = self.config.vision
        if vision is None:
            return Layout(case.tokens, case.rows, case.rows, columns)
        axes = vision.axes
        return Layout(case.tokens, case.rows, case.rows, columns, True, axes, vision.whole)

    def _pool(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Embeddings of images, of a model that reads them."""
        vision = self.config.vision
        if vision is None:
            return ()
        shape = (_POOL, (1 + len(vision.taps)) * self.config.hidden_size)
        return (jax.ShapeDtypeStruct(shape, np.dtype(self.dtype), sharding=self._everywhere),)


def _device_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    return int(math.prod(shape) * leaf.dtype.itemsize)
