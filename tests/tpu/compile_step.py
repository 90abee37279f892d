"""Compiles the real forward program of a model for a TPU topology, on a machine without one.

Run as a script: `python compile_step.py MODEL TOPOLOGY DEVICES TOKENS PAGES`; prints one JSON object. A process of its
own, because libtpu and the test process's CPU devices should not meet.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.aot.shapes import SHAPES
from jaxserve import models
from jaxserve.engine import step
from jaxserve.engine.batch import Layout
from jaxserve.engine.image_batch import ImageLayout

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 32,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 163840,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}
"""DeepSeek V3 with 4 of its 61 layers and 32 of its 256 experts."""
MODELS = {
    "llama": LLAMA_8B,
    "llama_70b": {
        **LLAMA_8B,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "deepseek_v3": DEEPSEEK,
    "deepseek_v32": {
        **DEEPSEEK,
        "model_type": "deepseek_v32",
        "index_n_heads": 64,
        "index_head_dim": 128,
        "index_topk": 1024,
    },
}
QWEN3_VL_8B = {
    "model_type": "qwen3_vl",
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rope_theta": 5000000,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
    },
    "vision_config": {"out_hidden_size": 4096, "depth": 3, "deepstack_visual_indexes": [0]},
}
"""With 3 of its tower's 27 blocks, and one of its 3 taps."""
QWEN2_5_VL_7B = {
    "model_type": "qwen2_5_vl",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128000,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584, "depth": 3, "fullatt_block_indexes": [2]},
}
"""With 3 of its tower's 32 blocks, one of them full."""
GEMMA3_4B = SHAPES["gemma-3-4b"]
GEMMA3_4B = GEMMA3_4B | {"vision_config": GEMMA3_4B["vision_config"] | {"num_hidden_layers": 3}}
"""With 3 of its tower's 27 blocks."""
MODELS |= {"qwen3_vl": QWEN3_VL_8B, "qwen2_5_vl": QWEN2_5_VL_7B, "gemma3": GEMMA3_4B}
POOL = 10241
"""Embeddings of images on the device."""
PAGE_SIZE = 16
CONTEXT = 2048
SLOTS = 64


def all_reduces_per_layer(hlo: str) -> int:
    """All-reduces inside the layers' scan: its body is one layer."""
    return len(re.findall(r'\ball-reduce(?:-start)?\([^\n]*op_name="[^"]*/while/body/', hlo))


def pool_of(config: models.ModelConfig, mesh: Mesh) -> jax.ShapeDtypeStruct:
    shape = (POOL, (1 + len(config.vision.taps)) * config.hidden_size)
    return jax.ShapeDtypeStruct(shape, "bfloat16", sharding=NamedSharding(mesh, PartitionSpec()))


def tower_report(config: models.ModelConfig, mesh: Mesh, patches: int) -> dict[str, Any]:
    """Compiles the program that encodes an image of so many patches."""
    graphdef, leaves = models.abstract_tower(config, mesh=mesh, dtype="bfloat16", layer_loop="scan")
    layout, pool = ImageLayout(config.vision, patches), pool_of(config, mesh)
    words = jax.ShapeDtypeStruct((layout.size,), np.int32, sharding=pool.sharding)
    started = time.perf_counter()
    with jax.set_mesh(mesh):
        function = jax.jit(partial(step.encode, layout, graphdef), donate_argnums=(1,))
        compiled = function.lower(leaves, pool, words).compile()
    memory = compiled.memory_analysis()
    return {
        "seconds": time.perf_counter() - started,
        "pool_bytes": int(np.prod(pool.shape)) * 2,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "optimal_seconds": compiled.cost_analysis().get("optimal_seconds"),
    }


def main(model: str, topology: str, devices: int, tokens: int, num_pages: int) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # its executables can't be read back without a TPU
    description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    with tempfile.TemporaryDirectory() as directory:
        name, _, quantize = model.partition(":")
        (Path(directory) / "config.json").write_text(json.dumps(MODELS[name]))
        config = models.choose_weights(models.load_config(Path(directory)), quantize="int8" if quantize else None)
    mesh = models.make_mesh(models.derive_mesh_shape(config, devices), description.devices[:devices])
    if "--tower" in sys.argv:
        print(json.dumps(tower_report(config, mesh, tokens)))
        return
    graphdef, leaves = models.abstract_leaves(config, mesh=mesh, dtype="bfloat16", layer_loop="scan")
    cache = models.cache_spec(config, num_pages=num_pages, page_size=PAGE_SIZE, dtype="bfloat16", mesh=mesh)
    reads, axes = config.vision is not None, 0 if config.vision is None else config.vision.axes
    rows = min(tokens, SLOTS)
    columns = (CONTEXT // PAGE_SIZE,) * len(models.cache_layout(config).windows)
    whole = config.vision is not None and config.vision.whole
    layout = Layout(tokens, rows, rows, columns, images=reads, rotary_axes=axes, whole_images=whole)
    replicated = NamedSharding(mesh, PartitionSpec())
    int32 = partial(jax.ShapeDtypeStruct, dtype=np.int32, sharding=replicated)
    images = [pool_of(config, mesh)] if reads else []
    function = jax.jit(partial(step.forward, layout, PAGE_SIZE, graphdef), donate_argnums=(1,))
    started = time.perf_counter()
    with jax.set_mesh(mesh):
        compiled = function.lower(leaves, cache, int32((SLOTS,)), int32((layout.size,)), *images).compile()
    memory = compiled.memory_analysis()
    cost = compiled.cost_analysis()
    per_device = [np.prod(s.sharding.shard_shape(s.shape)) * s.dtype.itemsize for s in cache.values()]
    weights = [np.prod(s.sharding.shard_shape(s.shape)) * s.dtype.itemsize for s in leaves]
    report = {
        "model": model,
        "topology": topology,
        "mesh": dict(mesh.shape),
        "seconds": time.perf_counter() - started,
        "cache_bytes": int(sum(per_device)),
        "weight_bytes": int(sum(weights)),
        "aliased_bytes": memory.alias_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "all_reduces_per_layer": all_reduces_per_layer(compiled.as_text()),
        "optimal_seconds": cost.get("optimal_seconds"),
        "bytes_accessed": cost.get("bytes accessed"),
    }
    if "--hlo" in sys.argv:
        Path(sys.argv[sys.argv.index("--hlo") + 1]).write_text(compiled.as_text())
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
