"""Tokens to logits (Flax NNX): config-driven decoders, their families, weight loading, sharding, attention kernels.

In: packed tokens, the KV cache and attention metadata. Out: hidden states, logits, the cache. Imports nothing of
sampling, engine, text or api.
"""

from jaxserve.models.cache import Cache, cache_bytes_per_page, cache_spec, init_cache
from jaxserve.models.config import ModelConfig
from jaxserve.models.kernels.choice import Backends, choose_backends
from jaxserve.models.kernels.target import Target
from jaxserve.models.layout import CacheLayout, cache_layout
from jaxserve.models.loading import load_config, load_model, random_model
from jaxserve.models.metadata import AttentionMeta, StepMeta
from jaxserve.models.model import ForwardOutput, GraphDef, LoadedModel, abstract_leaves, forward, unembed
from jaxserve.models.quantization import choose_weights, describe_weights
from jaxserve.models.sharding import derive_mesh_shape, make_mesh

__all__ = [
    "AttentionMeta",
    "Backends",
    "Cache",
    "CacheLayout",
    "ForwardOutput",
    "GraphDef",
    "LoadedModel",
    "ModelConfig",
    "StepMeta",
    "Target",
    "abstract_leaves",
    "cache_bytes_per_page",
    "cache_layout",
    "cache_spec",
    "choose_backends",
    "choose_weights",
    "derive_mesh_shape",
    "describe_weights",
    "forward",
    "init_cache",
    "load_config",
    "load_model",
    "make_mesh",
    "random_model",
    "unembed",
]
