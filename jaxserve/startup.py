"""From a model directory to a running engine: the steps every entry point (CLI, notebook) shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxserve.config import MAX_DRAFTS, EngineConfig
from jaxserve.engine import gpu
from jaxserve.engine.engine import Engine
from jaxserve.engine.image_sizes import VisionFacts
from jaxserve.engine.runner import Runner, Ticket
from jaxserve.engine.scheduler import Scheduler
from jaxserve.engine.sizing import DeviceFacts, ModelFacts, derive_config
from jaxserve.engine.stored_programs import StoredPrograms
from jaxserve.hosts.follower import Follower
from jaxserve.hosts.leader import Leader
from jaxserve.images.processor import ImageServices
from jaxserve.models import (
    Backends,
    LoadedModel,
    ModelConfig,
    VisionSpec,
    cache_bytes_per_page,
    cache_layout,
    describe_weights,
    load_model,
    make_mesh,
    serves_single_tokens,
)
from jaxserve.native.library import unavailable
from jaxserve.options import EngineOptions
from jaxserve.options.engine import PlatformDefaults
from jaxserve.prepared import MeshShape, Prepared
from jaxserve.text.tokenizers.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages are 'weights' (bytes) and 'programs'."""


@dataclass(frozen=True)
class Started:
    """A running engine and what it was made from."""

    engine: Engine[Ticket]
    runner: Runner
    tokenizer: Tokenizer
    model_config: ModelConfig
    config: EngineConfig
    backends: Backends
    """The kernels that run."""
    num_parameters: int
    device: str
    """Kind and number of devices, in words."""
    images: ImageServices | None
    """What prompts with images need; None = the model knows text only."""
    remarks: tuple[str, ...]
    """What a person should know: replicated dimensions, a shortened context."""


_SIZES = (
    "max_num_seqs",
    "max_model_len",
    "max_num_batched_tokens",
    "token_buckets",
    "context_buckets",
    "dtype",
    "layer_loop",
)
"""Options that programs depend on; with `--programs` they may be left out."""


def use_compilation_cache(directory: Path | None) -> None:
    """Keeps compiled programs on disk so that the next start is fast; None = jax's own settings stand.

    Every program is kept, however quickly it compiled: the buckets of a small model are many and quick.
    """
    if directory is not None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def start(
    prepared: Prepared,
    *,
    progress: Progress = lambda stage, done, total: None,
    on_death: Callable[[BaseException], None] | None = None,
    leader: Leader | None = None,
) -> Started:
    """Loads, sizes, compiles, and starts the engine thread. When this returns, nothing compiles any more.

    Args:
        prepared: of `prepare`.
        progress: see `Progress`.
        on_death: called on the engine thread if the loop dies.
        leader: the other hosts that hold parts of the model; None = there are none.

    Raises:
        ModelLoadError: the model can't be served; one clear sentence.
        HostLost: another host is gone.
    """
    model, options = load(prepared, progress), prepared.options
    return start_loaded(
        model, prepared.tokenizer, options, prepared.mesh_shape, progress, on_death, prepared.images, leader
    )


def load(prepared: Prepared, progress: Progress) -> LoadedModel:
    """Reads the weights: each host those of its own devices.

    Raises:
        ModelLoadError: the model can't be served; one clear sentence.
    """
    options, shape = prepared.options, prepared.mesh_shape
    chosen = options.chosen(jax.devices()[0].platform)
    return load_model(
        options.model_dir,
        mesh=make_mesh(shape),
        dtype=chosen.dtype,
        layer_loop=chosen.layer_loop,
        backends=prepared.backends,
        weights=options.weights,
        quantize=options.quantize,
        progress=lambda done, total: progress("weights", done, total),
    )


def start_loaded(
    model: LoadedModel,
    tokenizer: Tokenizer,
    options: EngineOptions,
    shape: MeshShape = (1, 1, 1),
    progress: Progress = lambda stage, done, total: None,
    on_death: Callable[[BaseException], None] | None = None,
    images: ImageServices | None = None,
    leader: Leader | None = None,
) -> Started:
    """As `start`, for a model already on the devices."""
    device = jax.devices()[0]
    config, runner = make_runner(model, options, shape, progress, leader)
    engine = Engine(
        Scheduler(config),
        runner,
        tokenizer,
        total_pages=config.num_pages - 1,
        vocab_size=model.config.vocab_size,
        lookup=options.speculate == "ngram",
        on_death=on_death,
    )
    return Started(
        engine=engine,
        runner=runner,
        tokenizer=tokenizer,
        model_config=model.config,
        config=config,
        backends=model.backends,
        num_parameters=model.num_parameters,
        device=f"{model.mesh.size} x {device.device_kind} ({device.platform})",
        images=None if images is None or config.images is None else images.limited(config.images.max_tokens),
        remarks=_remarks(model, tokenizer, options, config),
    )


def make_runner(
    model: LoadedModel, options: EngineOptions, shape: MeshShape, progress: Progress, group: Leader | Follower | None
) -> tuple[EngineConfig, Runner]:
    """Sizes and compiles, where there are several hosts together with them.

    Raises:
        ModelLoadError: the sizes don't fit, or programs can't be loaded.
        HostLost: another host is gone.
    """
    config, stored = derive_config(options, model_facts(model, options), _device_facts(model), shape), None
    if options.programs is not None:
        stored = StoredPrograms.open(options.programs, model.config, jax.devices()[0])
        config = stored.sizes(config, (name for name in _SIZES if getattr(options, name) is not None))
    if group is not None:
        config = group.agree(config)
    runner = Runner(config, model, relay=group.send) if isinstance(group, Leader) else Runner(config, model)
    runner.compile(lambda done, total: progress("programs", done, total), stored)
    if group is not None:
        group.ready()
    return config, runner


def model_facts(model: LoadedModel, options: EngineOptions) -> ModelFacts:
    """What sizing needs to know of a model."""
    config = model.config
    chosen = options.chosen(model.mesh.devices.flat[0].platform)
    return ModelFacts(
        context=config.max_position_embeddings,
        page_bytes=cache_bytes_per_page(
            config, page_size=options.page_size, dtype=model.dtype, mesh=model.mesh, backends=model.backends
        ),
        step_bytes=step_bytes(config, chosen),
        page_windows=cache_layout(config).windows,
        single_tokens=model.mesh.size == 1 and serves_single_tokens(config, model.backends),
        vision=None if config.vision is None else _vision_facts(config.vision, config.hidden_size, model.dtype),
    )


def step_bytes(config: ModelConfig, chosen: PlatformDefaults) -> int:
    """Bytes that one step's temporaries need at the largest bucket, per device (estimated)."""
    width = max(config.hidden_size * 8, max(layer.mlp.width for layer in config.layers) * 3)
    samples = max(chosen.max_num_seqs, MAX_DRAFTS + 1)
    return chosen.max_num_batched_tokens * width * 4 + samples * config.vocab_size * 16


def _vision_facts(vision: VisionSpec, width: int, dtype: str) -> VisionFacts:
    patches = None if vision.side is None else vision.side**2
    return VisionFacts(
        fixed=None if patches is None else (patches, vision.embeddings(patches)),
        merged=vision.merge**2,
        block=vision.block,
        row_bytes=(1 + len(vision.taps)) * width * (4 if dtype == "float32" else 2),
        patch_bytes=4 * (vision.inputs + 8 * vision.width + 3 * vision.inner + 512 * vision.num_heads),
        rotary_axes=vision.axes,
        whole=vision.whole,
    )


def _device_facts(model: LoadedModel) -> DeviceFacts:
    devices = [each for each in model.mesh.devices.flat if each.process_index == jax.process_index()]
    stats = [device.memory_stats() or {} for device in devices]
    limits = [stat["bytes_limit"] for stat in stats if "bytes_limit" in stat]
    return DeviceFacts(
        platform=devices[0].platform,
        memory_limit=min(limits) if limits else None,
        memory_in_use=max((stat.get("bytes_in_use", 0) for stat in stats), default=0),
    )


def _remarks(model: LoadedModel, tokenizer: Tokenizer, options: EngineOptions, config: EngineConfig) -> tuple[str, ...]:
    remarks = list(model.report)
    known, vocab = tokenizer.vocab_size, model.config.vocab_size
    if known > vocab:
        remarks.append(f"the tokenizer has {known} tokens, the model {vocab}: the others can't be used in prompts")
    platform = model.mesh.devices.flat[0].platform
    if platform == "gpu":
        remarks.append(gpu.describe())
        if model.backends.attention.name == "blocked":
            remarks.append(
                "attention is plain JAX: where sequences decode, its loops run to the end of a context bucket, so that "
                "the host need not end them; on Hopper --attention mosaic has kernels instead"
            )
    if platform == "cpu" and options.matmul is None and (reason := unavailable()) is not None:
        remarks.append(f"plain XLA computes, 2 to 4 times slower than native kernels would: {reason}")
    if (weights := describe_weights(model.config)) is not None:
        size = sum(leaf.nbytes for leaf in model.parameters) / 1e6
        remarks.append(f"weights are {weights}; all parameters take {size:,.0f} MB")
    if options.max_model_len is None and config.max_model_len < model.config.max_position_embeddings:
        remarks.append(
            f"context shortened from {model.config.max_position_embeddings} to {config.max_model_len} tokens to fit "
            "the KV memory"
        )
    return tuple(remarks)
