"""The paged KV cache: one flat array for all layers, {"kv": [L*P, page, 2K, H]}.

Layer l's page p is row l * P + p; K and V of a head lie side by side (2k = K, 2k + 1 = V). Page 0 of each layer
receives what padding tokens write. One array, because a jitted step then updates it in place whether layers are
scanned or unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxserve.models.attention import CACHE_AXES
from jaxserve.models.config import ModelConfig
from jaxserve.models.sharding import ShardingRules, make_mesh

Cache = Mapping[str, jax.Array]


def cache_spec(
    config: ModelConfig, *, num_pages: int, page_size: int, dtype: str, mesh: Mesh | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and sharding of the cache for `num_pages` pages per layer (page 0 included)."""
    mesh = make_mesh((1, 1, 1)) if mesh is None else mesh
    shape = (config.num_layers * num_pages, page_size, 2 * config.num_kv_heads, config.head_dim)
    sharding = ShardingRules.derive(config, mesh).sharding(CACHE_AXES)
    return {"kv": jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding)}


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
    """Bytes of one page over all layers, on each device."""
    total = 0
    for leaf in cache_spec(config, num_pages=1, page_size=page_size, dtype=dtype, mesh=mesh).values():
        if leaf.sharding is None:
            raise ValueError("cache leaves carry their sharding")
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total
