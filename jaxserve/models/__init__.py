"""Tokens to logits (Flax NNX): config-driven decoders, their families, weight loading, sharding, attention kernels.

In: packed tokens, the KV cache and attention metadata. Out: hidden states, logits, the cache. Imports nothing of
sampling, engine, text or api. A module is imported when one of its names is asked for: what only reads configurations
must not wait for jax.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxserve.models.cache import Cache, cache_bytes_per_page, cache_spec, init_cache
    from jaxserve.models.config import ModelConfig
    from jaxserve.models.config_file import load_config
    from jaxserve.models.kernels.choice import Backends, choose_backends, serves_single_tokens
    from jaxserve.models.kernels.target import Target
    from jaxserve.models.layout import CacheLayout, cache_layout
    from jaxserve.models.loading import load_model, random_model
    from jaxserve.models.memory_order import placement
    from jaxserve.models.metadata import AttentionMeta, ImageMeta, StepMeta
    from jaxserve.models.model import (
        ForwardOutput,
        GraphDef,
        LoadedModel,
        LoadedTower,
        abstract_leaves,
        abstract_tower,
        embed_image,
        forward,
        unembed,
    )
    from jaxserve.models.sharding import derive_mesh_shape, make_mesh
    from jaxserve.models.vision.grid import PatchGrid, patch_grid, rotary_positions
    from jaxserve.models.vision.spec import VisionSpec
    from jaxserve.models.vision.tower import Patches
    from jaxserve.models.weight_choice import choose_weights, describe_weights

__all__ = [
    "AttentionMeta",
    "Backends",
    "Cache",
    "CacheLayout",
    "ForwardOutput",
    "GraphDef",
    "ImageMeta",
    "LoadedModel",
    "LoadedTower",
    "ModelConfig",
    "PatchGrid",
    "Patches",
    "StepMeta",
    "Target",
    "VisionSpec",
    "abstract_leaves",
    "abstract_tower",
    "cache_bytes_per_page",
    "cache_layout",
    "cache_spec",
    "choose_backends",
    "choose_weights",
    "derive_mesh_shape",
    "describe_weights",
    "embed_image",
    "forward",
    "init_cache",
    "load_config",
    "load_model",
    "make_mesh",
    "patch_grid",
    "placement",
    "random_model",
    "rotary_positions",
    "serves_single_tokens",
    "unembed",
]

_HOMES = {
    "AttentionMeta": "metadata",
    "Backends": "kernels.choice",
    "Cache": "cache",
    "CacheLayout": "layout",
    "ForwardOutput": "model",
    "GraphDef": "model",
    "ImageMeta": "metadata",
    "LoadedModel": "model",
    "LoadedTower": "model",
    "ModelConfig": "config",
    "PatchGrid": "vision.grid",
    "Patches": "vision.tower",
    "StepMeta": "metadata",
    "Target": "kernels.target",
    "VisionSpec": "vision.spec",
    "abstract_leaves": "model",
    "abstract_tower": "model",
    "cache_bytes_per_page": "cache",
    "cache_layout": "layout",
    "cache_spec": "cache",
    "choose_backends": "kernels.choice",
    "choose_weights": "weight_choice",
    "derive_mesh_shape": "sharding",
    "describe_weights": "weight_choice",
    "embed_image": "model",
    "forward": "model",
    "init_cache": "cache",
    "load_config": "config_file",
    "load_model": "loading",
    "make_mesh": "sharding",
    "patch_grid": "vision.grid",
    "placement": "memory_order",
    "random_model": "loading",
    "rotary_positions": "vision.grid",
    "serves_single_tokens": "kernels.choice",
    "unembed": "model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
