"""From what the user asked for and what the device has to one `EngineConfig`: context, slots, pages, buckets."""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, repeat, takewhile
from operator import mul
from pathlib import Path

from jaxserve.config import EngineConfig, ImageSizes, table_columns
from jaxserve.engine.image_sizes import VisionFacts, image_sizes, least_step
from jaxserve.errors import ModelLoadError
from jaxserve.options import EngineOptions

_CPU_SHARE = 0.25
"""Share of the machine's memory that KV pages take at most on CPU, where the machine is somebody's own."""
_CPU_BYTES = 1 << 30
"""Memory of KV pages on CPU that needs no reason; beyond it there is one whole context at most. XLA fills the pages
with zeros at start, which takes seconds a GiB on a small machine, even if they are given back at once."""
_CPU_PREFIX_SHARE = 0.25
"""Pages for the prefix cache on CPU, beside those that all slots can fill, as a share of them. Elsewhere as many."""
_ACCELERATOR_SHARE = 0.90
"""Share of a device's memory that weights, pages and temporaries may fill together."""
_SMALLEST_CONTEXT = 1024
"""Of a GPU's context buckets."""
_GPU_SHARE = 0.97
"""The same of what jax takes of a GPU (`gpu.py`), which leaves memory for others outside."""


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
    single_tokens: bool = False
    """Whether a step of one token has a bucket of its own: its bits are those of larger ones, and it costs less."""
    vision: VisionFacts | None = None
    """Of its image tower; None = it knows text only."""


def default_token_buckets(smallest: int, largest: int) -> tuple[int, ...]:
    """`smallest` and its doubles up to `largest`, which is the last."""
    buckets = []
    size = smallest
    while size < largest:
        buckets.append(size)
        size *= 2
    return (*buckets, largest)


def default_context_buckets(platform: str, context: int) -> tuple[int, ...]:
    """On GPUs powers of four below the context. Elsewhere loops end where a row does, and no page table is sent far."""
    sizes = accumulate(repeat(4), mul, initial=_SMALLEST_CONTEXT)
    return tuple(takewhile(lambda size: size < context, sizes)) if platform == "gpu" else ()


def check_context(options: EngineOptions, context: int) -> None:
    """Compares the chosen context with the model's.

    Raises:
        ModelLoadError: it is more.
    """
    if (options.max_model_len or 0) > context:
        raise ModelLoadError(
            f"--max-model-len {options.max_model_len} is more than the model's context of {context} tokens"
        )


def check_sizes(options: EngineOptions, context: int, platform: str) -> None:
    """Compares what was chosen with itself and with the model's context, before memory matters.

    Raises:
        ModelLoadError: a contradiction, in one sentence that names the flag.
    """
    chosen = options.chosen(platform)
    budget = options.token_buckets[-1] if options.token_buckets else chosen.max_num_batched_tokens
    check_context(options, context)
    if chosen.max_num_seqs > budget:
        raise ModelLoadError(f"--max-num-seqs {chosen.max_num_seqs} is more than the {budget} tokens of one step")
    if budget < options.page_size:
        raise ModelLoadError(
            f"--max-num-batched-tokens {budget} is less than the {options.page_size} tokens of one KV page"
        )


def derive_config(
    options: EngineOptions, model: ModelFacts, device: DeviceFacts, mesh_shape: tuple[int, int, int]
) -> EngineConfig:
    """Fixes every size of the engine.

    Raises:
        ModelLoadError: the options contradict each other or the memory, in one sentence that names the flag.
    """
    chosen = options.chosen(device.platform)
    least = 0 if model.vision is None else least_step(model.vision, chosen.max_num_seqs, options.page_size)
    largest = chosen.max_num_batched_tokens
    while options.max_num_batched_tokens is None and largest < least:
        largest *= 2
    _check_ascending(token_buckets=options.token_buckets, context_buckets=options.context_buckets)
    buckets = options.token_buckets or default_token_buckets(chosen.smallest_bucket, largest)
    if buckets[-1] < least:
        raise ModelLoadError(
            f"--max-num-batched-tokens {buckets[-1]} is less than the {least} that one step must take: the model reads "
            "an image in one piece, beside all other sequences"
        )
    if options.token_buckets is None and model.single_tokens:
        buckets = (1, *buckets)
    check_sizes(options, model.context, device.platform)
    images = _image_sizes(options, model, device, options.max_model_len or model.context, buckets[-1])
    pages = _kv_bytes(options, model, device, images) // model.page_bytes
    context, pages = _fit_context(options, model, chosen.max_num_seqs, buckets[-1], pages, device.platform)
    if images is not None and images.max_tokens >= context:  # the context was shortened to less than an image
        images = _image_sizes(options, model, device, context, buckets[-1])
    return EngineConfig(
        model_dir=options.model_dir,
        dtype=chosen.dtype,
        max_num_seqs=chosen.max_num_seqs,
        max_model_len=context,
        page_size=options.page_size,
        num_pages=pages,
        max_num_batched_tokens=buckets[-1],
        max_num_mixed_tokens=min(chosen.max_num_mixed_tokens, buckets[-1]),
        token_buckets=buckets,
        context_buckets=_context_buckets(options, device.platform, context),
        page_windows=model.page_windows,
        mesh_shape=mesh_shape,
        layer_loop=chosen.layer_loop,
        attention=options.attention,
        matmul=options.matmul,
        prefix_caching=options.prefix_caching,
        max_waiting=options.max_waiting,
        images=images,
    )


def _check_ascending(**given: tuple[int, ...] | None) -> None:
    for name, sizes in given.items():
        if sizes and (sizes[0] < 1 or list(sizes) != sorted(set(sizes))):
            raise ModelLoadError(f"{name} {list(sizes)}: sizes ascend, from 1 on")


def _context_buckets(options: EngineOptions, platform: str, context: int) -> tuple[int, ...]:
    if options.context_buckets is None:
        return default_context_buckets(platform, context)
    return tuple(size for size in options.context_buckets if size < context)


def _kv_bytes(options: EngineOptions, model: ModelFacts, device: DeviceFacts, images: ImageSizes | None) -> int:
    if options.kv_memory is not None:
        return options.kv_memory
    if device.memory_limit is None:
        return int(_machine_memory() * _CPU_SHARE)
    share = _GPU_SHARE if device.platform == "gpu" else _ACCELERATOR_SHARE
    return int(device.memory_limit * share) - device.memory_in_use - model.step_bytes - _image_bytes(model, images)


def _image_sizes(
    options: EngineOptions, model: ModelFacts, device: DeviceFacts, context: int, step_tokens: int
) -> ImageSizes | None:
    if model.vision is None:
        return None
    most = options.chosen(device.platform).max_image_tokens
    return image_sizes(model.vision, most, options.image_cache_tokens, context, step_tokens)


def _image_bytes(model: ModelFacts, sizes: ImageSizes | None) -> int:
    """The pool of embeddings and the temporaries of the tower's largest program."""
    if model.vision is None or sizes is None:
        return 0
    return sizes.pool * model.vision.row_bytes + sizes.patch_buckets[-1] * model.vision.patch_bytes


def _fit_context(
    options: EngineOptions, model: ModelFacts, seqs: int, budget: int, pages: int, platform: str
) -> tuple[int, int]:
    """Context length and number of pages: what all slots can fill, and a share of it for the prefix cache."""
    wanted = options.max_model_len or model.context

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
        prefix_share = 1.0
        if platform == "cpu":
            prefix_share = _CPU_PREFIX_SHARE
            pages = min(pages, max(_CPU_BYTES // model.page_bytes, needed(wanted) + 1))
        pages = min(pages, int((1 + prefix_share) * seqs * needed(wanted)) + 1)
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
