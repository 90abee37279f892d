"""From what the user asked for and what the device has to one `EngineConfig`: context, slots, pages, buckets."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxserve.config import Dtype, EngineConfig, table_columns
from jaxserve.errors import ModelLoadError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_CPU_SHARE = 0.25
"""Share of the machine's memory that KV pages take at most on CPU, where the machine is somebody's own."""
_ACCELERATOR_SHARE = 0.90
"""Share of a device's memory that weights, pages and temporaries may fill together."""
_GPU_SHARE = 0.97
"""The same of what jax takes of a GPU (`gpu.py`), which leaves memory for others outside."""


@dataclass(frozen=True)
class EngineOptions:
    """What the command line may say; None = derive it."""

    model_dir: Path
    dtype: Dtype | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    kv_memory: int | None = None
    """Bytes of KV pages per device."""
    device_memory: float | None = None
    """Share of each GPU's memory to take."""
    page_size: int = 16
    max_num_batched_tokens: int | None = None
    token_buckets: tuple[int, ...] | None = None
    prefix_caching: bool = True
    layer_loop: Literal["scan", "unroll"] | None = None
    attention: str | None = None
    """Attention kernels by name."""
    matmul: str | None = None
    """Kernels of matrix products by name."""
    weights: Literal["keep", "dequantize"] = "keep"
    """Weights that are stored quantised stay so (as fast as float32 on CPU, in a quarter of the memory), or not."""
    quantize: Literal["int8"] | None = None
    """Quantise the projections' weights while they are loaded."""
    max_waiting: int = 1024


@dataclass(frozen=True)
class DeviceFacts:
    """What sizing needs to know of the devices."""

    platform: str
    """jax's platform name: cpu, gpu or tpu."""
    memory_limit: int | None = None
    """Bytes one device may use, where the platform tells."""
    memory_in_use: int = 0
    """Bytes in use on the fullest device, weights included."""


@dataclass(frozen=True)
class ModelFacts:
    """What sizing needs to know of the model."""

    context: int
    """Longest context the model was made for."""
    page_bytes: int
    """Bytes of one page of the pool, over all layers of a page group, per device."""
    step_bytes: int
    """Bytes that one step's temporaries need at the largest bucket, per device (estimated)."""
    page_windows: tuple[int | None, ...] = (None,)
    """Window of each page group; None = no window."""


def parse_bytes(text: str) -> int:
    """Reads '2GiB', '512M', '1000000'.

    Raises:
        ValueError: not a positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a size such as 512MiB, 2GiB or 4G")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def default_dtype(platform: str) -> Dtype:
    """float32 on CPU (XLA's bfloat16 matmuls are slow there), bfloat16 elsewhere."""
    return "float32" if platform == "cpu" else "bfloat16"


def default_layer_loop(platform: str) -> Literal["scan", "unroll"]:
    """Scan on TPU (compiles several times faster, same speed), unroll on CPU and GPU (scan copies weights there)."""
    return "scan" if platform == "tpu" else "unroll"


def default_token_buckets(platform: str, max_tokens: int) -> tuple[int, ...]:
    """Powers of two up to `max_tokens`, from 4 on CPU, 8 on GPU and 16 on TPU.

    Never 1: on CPU a one-row matmul takes another path than two rows and more, with other rounding; and four rows cost
    what two cost there (the weights' bandwidth), so 4 is the smallest that pays. On GPUs 8 rows cost what one costs.
    """
    size = {"cpu": 4, "gpu": 8}.get(platform, 16)
    buckets = []
    while size < max_tokens:
        buckets.append(size)
        size *= 2
    return (*buckets, max_tokens)


def derive_config(
    options: EngineOptions, model: ModelFacts, device: DeviceFacts, mesh_shape: tuple[int, int, int]
) -> EngineConfig:
    """Fixes every size of the engine.

    Raises:
        ModelLoadError: the options contradict each other or the memory, in one sentence that names the flag.
    """
    on_cpu = device.platform == "cpu"
    seqs = options.max_num_seqs or (16 if on_cpu else 64)
    budget = options.max_num_batched_tokens or (512 if on_cpu else 2048)
    buckets = options.token_buckets or default_token_buckets(device.platform, max(budget, 2))
    if seqs > buckets[-1]:
        raise ModelLoadError(f"--max-num-seqs {seqs} is more than the {buckets[-1]} tokens of one step")
    if buckets[-1] < options.page_size:
        raise ModelLoadError(
            f"--max-num-batched-tokens {buckets[-1]} is less than the {options.page_size} tokens of one KV page"
        )
    pages = _kv_bytes(options, model, device) // model.page_bytes
    context, pages = _fit_context(options, model, seqs, buckets[-1], pages)
    return EngineConfig(
        model_dir=options.model_dir,
        dtype=options.dtype or default_dtype(device.platform),
        max_num_seqs=seqs,
        max_model_len=context,
        page_size=options.page_size,
        num_pages=pages,
        max_num_batched_tokens=buckets[-1],
        token_buckets=buckets,
        page_windows=model.page_windows,
        mesh_shape=mesh_shape,
        layer_loop=options.layer_loop or default_layer_loop(device.platform),
        attention=options.attention,
        matmul=options.matmul,
        prefix_caching=options.prefix_caching,
        max_waiting=options.max_waiting,
    )


def _kv_bytes(options: EngineOptions, model: ModelFacts, device: DeviceFacts) -> int:
    if options.kv_memory is not None:
        return options.kv_memory
    if device.memory_limit is None:
        return int(_machine_memory() * _CPU_SHARE)
    share = _GPU_SHARE if device.platform == "gpu" else _ACCELERATOR_SHARE
    return int(device.memory_limit * share) - device.memory_in_use - model.step_bytes


def _fit_context(options: EngineOptions, model: ModelFacts, seqs: int, budget: int, pages: int) -> tuple[int, int]:
    """Context length and number of pages: no more pages than all slots can fill twice (the rest is prefix cache)."""
    wanted = options.max_model_len or model.context
    if wanted > model.context:
        raise ModelLoadError(f"--max-model-len {wanted} is more than the model's context of {model.context} tokens")
    if wanted < 2:
        raise ModelLoadError(f"--max-model-len {wanted} leaves no room for a prompt and an answer")

    def needed(context: int) -> int:
        return sum(table_columns(model.page_windows, context, options.page_size, budget))

    usable = pages - 1  # page 0 is never allocated
    if needed(wanted) > usable:
        blocks = bisect_right(
            range(-(-wanted // options.page_size)), usable, key=lambda b: needed(b * options.page_size)
        )
        fitting = max(blocks - 1, 0) * options.page_size
        if options.max_model_len is not None or fitting < 2:
            raise ModelLoadError(
                f"the KV memory holds {fitting} tokens, fewer than one sequence of {wanted}: raise --kv-memory or "
                "lower --max-model-len"
            )
        wanted = fitting
    if options.kv_memory is None:
        pages = min(pages, 2 * seqs * needed(wanted) + 1)
    return wanted, pages


def _machine_memory() -> int:
    """Bytes of physical memory, or what the container's limit leaves of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            total = min(total, int(limit.read_text()))
        except (OSError, ValueError):
            continue
    return total
