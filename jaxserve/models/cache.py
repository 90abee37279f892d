"""The paged cache: one flat array [S*P, page, ...] for each kind of thing that layers keep, S being a page's slots.

"kv" [S*P, page, 2K, H] holds keys and values side by side (2k = K, 2k + 1 = V), "latent" [S*P, page, C] the latents of
latent attention with their rotated keys, "index" [S*P, page, H'] the keys of its indexer. Page p of the layer in slot s
of its page group (`layout.py`) is row s * P + p, in every array. Page 0 receives what padding tokens write. Flat
arrays, because a jitted step then updates them in place whether layers are scanned or unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxserve.models.attention import CACHE_AXES
from jaxserve.models.config import LatentSpec, LayerSpec, ModelConfig
from jaxserve.models.layout import cache_layout
from jaxserve.models.sharding import ShardingRules, make_mesh

Cache = Mapping[str, jax.Array]


@dataclass(frozen=True)
class CacheArray:
    """What one layer keeps of a position."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    """Logical axes of the whole array: two for row and position, then those of `shape`."""


def kept_by(layer: LayerSpec, lanes: int = 1) -> dict[str, CacheArray]:
    """The arrays that a layer uses, by name; rows of latents are padded to a multiple of `lanes`."""
    spec, whole = layer.attention, (None, None, None)
    if isinstance(spec, LatentSpec):
        index = {} if spec.indexer is None else {"index": CacheArray((spec.indexer.head_dim,), whole)}
        return {"latent": CacheArray((spec.head_dim + -spec.head_dim % lanes,), whole), **index}
    return {"kv": CacheArray((2 * spec.num_kv_heads, spec.head_dim), CACHE_AXES)}


def cache_spec(
    config: ModelConfig, *, num_pages: int, page_size: int, dtype: str, mesh: Mesh | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and sharding of the cache for a pool of `num_pages` pages (page 0 included).

    Raises:
        ValueError: layers want arrays of one name with different shapes.
    """
    mesh = make_mesh((1, 1, 1)) if mesh is None else mesh
    # With rows of 576 numbers XLA:TPU would make the pages the minor dimension, and copy the cache in and out of it.
    lanes = 128 if mesh.devices.flat[0].platform == "tpu" else 1
    rules, rows = ShardingRules.derive(config, mesh), cache_layout(config).slots * num_pages
    arrays: dict[str, CacheArray] = {}
    for layer in dict.fromkeys(config.layers):
        for name, array in kept_by(layer, lanes).items():
            if arrays.setdefault(name, array) != array:
                raise ValueError(f"layers keep {name} of shapes {arrays[name].shape} and {array.shape}")
    return {
        name: jax.ShapeDtypeStruct(
            (rows, page_size, *array.shape), jnp.dtype(dtype), sharding=rules.sharding(array.axes)
        )
        for name, array in arrays.items()
    }


def init_cache(
    config: ModelConfig, *, num_pages: int, page_size: int, dtype: str, mesh: Mesh | None = None
) -> dict[str, jax.Array]:
    """A cache of zeros, made on the devices that hold it."""
    spec = cache_spec(config, num_pages=num_pages, page_size=page_size, dtype=dtype, mesh=mesh)
    return {
        name: jax.jit(lambda leaf=leaf: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)()
        for name, leaf in spec.items()
    }


def cache_bytes_per_page(config: ModelConfig, *, page_size: int, dtype: str, mesh: Mesh | None = None) -> int:
    """Bytes of one page of the pool, over all its slots and arrays, on each device."""
    total = 0
    for leaf in cache_spec(config, num_pages=1, page_size=page_size, dtype=dtype, mesh=mesh).values():
        if leaf.sharding is None:
            raise ValueError("cache leaves carry their sharding")
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total
