"""The paged cache: flat arrays [S*P, ...], S being a page's slots, in the layout that the attention backend wants.

Page p of the layer in slot s of its page group (`layout.py`) is row s * P + p, in every array. Page 0 receives what
padding tokens write. Flat arrays, because a jitted step then updates them in place whether layers are scanned or
unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import AttentionSpec, LatentSpec, ModelConfig
from jaxserve.models.kernels.attention_backend import CacheArray, PageFormat
from jaxserve.models.kernels.choice import Backends, preferred_backends
from jaxserve.models.layout import cache_layout
from jaxserve.models.parameters import Build
from jaxserve.models.sharding import ShardingRules, make_mesh
from jaxserve.native.calls import zeros
from jaxserve.native.library import load, unavailable

Cache = Mapping[str, jax.Array]


def cache_partition(build: Build, spec: AttentionSpec | LatentSpec, page_size: int) -> dict[str, PartitionSpec]:
    """How the arrays that such a layer uses are split over the mesh, by name."""
    page = _page_format(build.rules.mesh, page_size, build.dtype)
    arrays = build.backends.attention.cache_arrays(spec, page)
    return {name: build.rules.spec((None, *array.axes)) for name, array in arrays.items()}


def cache_spec(
    config: ModelConfig,
    *,
    num_pages: int,
    page_size: int,
    dtype: str,
    mesh: Mesh | None = None,
    backends: Backends | None = None,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and sharding of the cache for a pool of `num_pages` pages (page 0 included).

    Args:
        config: the model.
        num_pages: P.
        page_size: positions of a page.
        dtype: of keys and values.
        mesh: None = one device.
        backends: of the model; None = those that the devices prefer.

    Raises:
        ModelLoadError: the backend does not work with pages of this size.
        ValueError: layers want arrays of one name with different shapes.
    """
    mesh = make_mesh((1, 1, 1)) if mesh is None else mesh
    rules, rows = ShardingRules.derive(config, mesh), cache_layout(config).slots * num_pages
    arrays = _arrays(config, _page_format(mesh, page_size, dtype), backends or preferred_backends(mesh, config.layers))
    return {
        name: jax.ShapeDtypeStruct(
            (rows, *array.shape), jnp.dtype(array.dtype), sharding=rules.sharding((None, *array.axes))
        )
        for name, array in arrays.items()
    }


def position_bytes(
    rules: ShardingRules, backends: Backends, spec: AttentionSpec | LatentSpec, page: PageFormat
) -> float:
    """Bytes that one position of one such layer takes on each device."""
    total = 0.0
    for array in backends.attention.cache_arrays(spec, page).values():
        parts = math.prod(rules.parts(axis) for axis in array.axes)
        total += math.prod(array.shape) * jnp.dtype(array.dtype).itemsize / page.size / parts
    return total


def _arrays(config: ModelConfig, page: PageFormat, backends: Backends) -> dict[str, CacheArray]:
    """The arrays of all layers."""
    attention = backends.attention
    if page.size not in attention.page_sizes:
        sizes = ", ".join(map(str, attention.page_sizes))
        raise ModelLoadError(f"--attention {attention.name} works with pages of {sizes} positions, not of {page.size}.")
    arrays: dict[str, CacheArray] = {}
    for spec in dict.fromkeys(layer.attention for layer in config.layers):
        for name, array in attention.cache_arrays(spec, page).items():
            if arrays.setdefault(name, array) != array:
                raise ValueError(f"layers keep {name} of shapes {arrays[name].shape} and {array.shape}")
    return arrays


def _page_format(mesh: Mesh, size: int, dtype: str) -> PageFormat:
    return PageFormat(size, dtype, mesh.devices.flat[0].platform)


def init_cache(spec: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """A cache of zeros, made on the devices that hold it; `spec` is of `cache_spec`."""
    return {
        name: jax.jit(partial(_zeros, leaf, native=_is_native(leaf)), out_shardings=leaf.sharding)()
        for name, leaf in spec.items()
    }


def _zeros(leaf: jax.ShapeDtypeStruct, *, native: bool) -> jax.Array:
    return zeros(load(), leaf.shape, leaf.dtype) if native else jnp.zeros(leaf.shape, leaf.dtype)


def _is_native(leaf: jax.ShapeDtypeStruct) -> bool:
    """Whether the array lies whole in the host's memory, which XLA would write from end to end: 0.3 s for 540 MB."""
    devices = () if leaf.sharding is None else tuple(leaf.sharding.device_set)
    return [device.platform for device in devices] == ["cpu"] and unavailable() is None


def cache_bytes_per_page(
    config: ModelConfig, *, page_size: int, dtype: str, mesh: Mesh | None = None, backends: Backends | None = None
) -> int:
    """Bytes of one page of the pool, over all its slots and arrays, on each device; see `cache_spec`."""
    spec = cache_spec(config, num_pages=1, page_size=page_size, dtype=dtype, mesh=mesh, backends=backends)
    total = 0
    for leaf in spec.values():
        if leaf.sharding is None:
            raise ValueError("cache leaves carry their sharding")
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total
