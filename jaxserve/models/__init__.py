"""Tokens to logits (Flax NNX): config-driven decoders, their families, weight loading, sharding, attention kernels.

In: packed tokens, the KV cache and attention metadata. Out: hidden states, logits, the cache. Imports nothing of
sampling, engine, text or api.
"""

from jaxserve.models.cache import Cache, cache_bytes_per_page, cache_spec, init_cache
from jaxserve.models.config import ModelConfig
from jaxserve.models.kernels.choice import Backends, choose_backends, serves_single_tokens
from jaxserve.models.kernels.target import Target
from jaxserve.models.layout import CacheLayout, cache_layout
from jaxserve.models.loading import load_config, load_model, random_model
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
from jaxserve.models.quantization import choose_weights, describe_weights
from jaxserve.models.sharding import derive_mesh_shape, make_mesh
from jaxserve.models.vision.grid import PatchGrid, patch_grid, rotary_positions
from jaxserve.models.vision.spec import VisionSpec
from jaxserve.models.vision.tower import Patches

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
    "random_model",
    "rotary_positions",
    "serves_single_tokens",
    "unembed",
]
