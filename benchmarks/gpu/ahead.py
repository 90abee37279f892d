"""Compiles the engine's programs for an H100 on a machine without one, and says what a step would do.

    python -m benchmarks.gpu.ahead [--models NAME ...] [--layers 2] [--tokens 8] [--context 8192] [--attention NAME]

Needs jax's CUDA plugin, without CUDA: pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt (of jax's version).
Prints one JSON object a program: kernels, bytes moved by XLA's kernels, loops whose end the host reads, temporaries.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.gpu.hlo import Program
from benchmarks.gpu.program import PAGE_SIZE, Bucket, abstract_batch, step_of
from benchmarks.gpu.shapes import SHAPES, model_config
from jaxserve import models
from jaxserve.engine.programs import OPTIONS
from jaxserve.models.cache import cache_spec
from jaxserve.models.config import ModelConfig
from jaxserve.models.kernels.choice import Backends, choose_backends
from jaxserve.models.model import plan_model

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_SLOTS, _PAGES = 64, 4096


def h100() -> Mesh:
    """A mesh of one H100 that need not exist.

    Raises:
        Exception: jax has no CUDA plugin of its version (of whatever kind jax raises).
    """
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="h100", target_config=_H100, topology="1x1x1"
    )
    return models.make_mesh((1, 1, 1), topology.devices[:1])


def compile_step(config: ModelConfig, bucket: Bucket, mesh: Mesh, backends: Backends) -> Any:
    """The step of a bucket, compiled; weights and cache are those of the model."""
    arguments: dict[str, Any] = {"mesh": mesh, "dtype": "bfloat16", "backends": backends}
    graphdef, leaves = models.abstract_leaves(config, layer_loop="unroll", **arguments)
    cache = cache_spec(config, num_pages=_PAGES, page_size=PAGE_SIZE, **arguments)
    batch = abstract_batch(config, bucket, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):
        lowered = jax.jit(step_of(graphdef), donate_argnums=(1,)).lower(leaves, cache, *batch)
        return lowered.compile(compiler_options=OPTIONS)


def needed_weights(config: ModelConfig, mesh: Mesh, backends: Backends) -> int:
    """Bytes of the weights that every step reads whole: all but the embedding table and routed experts."""
    plan = plan_model(config, mesh=mesh, dtype="bfloat16", layer_loop="unroll", backends=backends)
    read = [leaf.value for leaf in plan.leaves if leaf.name != "embed" and "experts" not in leaf.name]
    return sum(math.prod(value.shape) * value.dtype.itemsize for value in read)


def forward_report(
    name: str,
    *,
    layers: int | None = None,
    tokens: int = 8,
    context: int = 8192,
    attention: str | None = None,
    matmul: str | None = None,
) -> dict[str, Any]:
    """What a step of `tokens` would do on an H100, by the compiled program."""
    jax.config.update("jax_enable_compilation_cache", False)  # its executables can't be read back without a GPU
    config, mesh, started = model_config(name, layers), h100(), time.perf_counter()
    backends = choose_backends(attention, matmul, "gpu", config.layers)
    compiled = compile_step(config, Bucket(tokens, min(tokens, _SLOTS), context), mesh, backends)
    report, memory = Program(compiled.as_text()).report(), compiled.memory_analysis()
    cache = cache_spec(config, num_pages=_PAGES, page_size=PAGE_SIZE, dtype="bfloat16", mesh=mesh, backends=backends)
    return {
        "model": name,
        "layers": len(config.layers),
        "tokens": tokens,
        "context": context,
        "attention": backends.attention.name,
        "matmul": backends.matmul.name,
        "jax": jax.__version__,
        "seconds": round(time.perf_counter() - started, 1),
        "kernels": report.kernels,
        "unknown_loops": report.unknown_loops,
        "conditionals": report.conditionals,
        "bytes_by_xla": report.bytes,
        "needed_weight_bytes": needed_weights(config, mesh, backends),
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "cache_bytes": sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in cache.values()),
        "kinds": dict(report.kinds.most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--layers", type=int, default=2, help="0 = all of them")
    parser.add_argument("--tokens", nargs="+", type=int, default=[8])
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--attention")
    parser.add_argument("--matmul")
    options = parser.parse_args()
    for name in options.models:
        for tokens in options.tokens:
            report = forward_report(
                name,
                layers=options.layers or None,
                tokens=tokens,
                context=options.context,
                attention=options.attention,
                matmul=options.matmul,
            )
            json.dump(report, sys.stdout)
            print(flush=True)


if __name__ == "__main__":
    main()
