"""Small engine configurations for tests that need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxserve.config import EngineConfig


def engine_config(**changes: Any) -> EngineConfig:
    """A configuration of 4 slots and 64 pages of 4 tokens."""
    sizes: dict[str, Any] = {
        "model_dir": Path(),
        "dtype": "float32",
        "max_num_seqs": 4,
        "max_model_len": 64,
        "num_pages": 65,
        "page_size": 4,
        "max_num_batched_tokens": 32,
        "page_windows": (None,),
        "mesh_shape": (1, 1, 1),
        "layer_loop": "unroll",
        "prefix_caching": True,
        "max_waiting": 1024,
    } | changes
    return EngineConfig(token_buckets=(sizes["max_num_batched_tokens"],), **sizes)
