"""Options of the model and the engine: what `LLM` takes, and most of what `serve` and `generate` take."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from jaxserve.config import Dtype
from jaxserve.errors import ModelLoadError
from jaxserve.options.declaration import Options, option
from jaxserve.options.values import SIZE, parse_mesh

_RUNS = ("serve", "generate")
_PLANS = ("serve", "generate", "plan", "compile")
_FIXED = "mosaic_fixed"
"""Of the kernels of products, those that add in one order on GPUs."""
_ALL = ("serve", "generate", "convert", "plan", "compile")


@dataclass(frozen=True)
class PlatformDefaults:
    """What stands where nothing was chosen; the reasons are in docs/decisions.md."""

    dtype: Dtype
    """XLA's bfloat16 matmuls are slow on CPU."""
    layer_loop: Literal["scan", "switch", "unroll"]
    """Scan on TPU: compiles several times faster, same speed. Elsewhere scan copies or slows; on CPU a loop can choose
    each layer's weights where they lie (`models/choice.py`)."""
    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_mixed_tokens: int
    """On CPU 64 tokens of a prompt cost about what one token of an answer does; accelerators take longer to fill."""
    max_image_tokens: int
    smallest_bucket: int
    """Never 1: on CPU XLA multiplies one row by another routine than two and more, with other rounding; and four rows
    cost what two cost there (the weights' bandwidth), so 4 is the smallest that pays. Native kernels have a bucket of
    1 besides. On GPUs 8 rows cost what one costs."""


_PLATFORMS = {
    "cpu": PlatformDefaults("float32", "switch", 16, 128, 64, 1024, 4),
    "gpu": PlatformDefaults("bfloat16", "unroll", 64, 2048, 512, 4096, 8),
    "tpu": PlatformDefaults("bfloat16", "scan", 64, 2048, 512, 4096, 16),
}


def platform_defaults(platform: str) -> PlatformDefaults:
    """The defaults of one of jax's platforms; those that aren't known are taken for a GPU."""
    return _PLATFORMS.get(platform, _PLATFORMS["gpu"])


def _by_platform(name: str) -> str:
    """'16 on CPU, 64 elsewhere', or each platform where all differ."""
    cpu, gpu, tpu = (getattr(_PLATFORMS[platform], name) for platform in ("cpu", "gpu", "tpu"))
    if gpu == tpu:
        return f"{cpu} on CPU, {gpu} elsewhere"
    return f"{tpu} on TPU, {cpu} elsewhere" if gpu == cpu else f"{cpu} on CPU, {gpu} on GPU, {tpu} on TPU"


@dataclass(frozen=True)
class EngineOptions(Options):
    """What is chosen of the model and the engine; None = derived from model and devices."""

    model_dir: Path
    """Local directory of the model."""
    dtype: Dtype | None = option(
        None, "Weights and KV pages.", "Model", commands=_PLANS, default_text=_by_platform("dtype")
    )
    max_num_seqs: int | None = option(
        None,
        "Sequences that run at once.",
        "Sizes",
        commands=("serve", "plan", "compile"),
        least=1,
        default_text=_by_platform("max_num_seqs"),
    )
    max_model_len: int | None = option(
        None,
        "Context length: tokens of a prompt and its answer.",
        "Sizes",
        commands=_PLANS,
        least=2,
        default_text="the model's, or what fits the memory",
    )
    kv_memory: int | None = option(
        None,
        "Memory for KV pages per device, such as 2GiB.",
        "Sizes",
        commands=_PLANS,
        least=1,
        **SIZE,
        default_text="on CPU what all sequences and a prefix cache need, 1 GiB or one context at most; else what "
        "weights and temporaries leave of 90%",
    )
    page_size: int = option(16, "Token positions of a KV page.", "Sizes", commands=(), least=1)
    max_num_batched_tokens: int | None = option(
        None,
        "Token budget of one step.",
        "Sizes",
        commands=("serve", "plan", "compile"),
        least=2,
        default_text=_by_platform("max_num_batched_tokens"),
    )
    max_num_mixed_tokens: int | None = option(
        None,
        "Token budget of a step in which answers grow: how long prompts may hold up their next tokens.",
        "Sizes",
        least=1,
        default_text=_by_platform("max_num_mixed_tokens"),
    )
    token_buckets: tuple[int, ...] | None = option(
        None,
        "Ascending sizes of a step that programs are compiled for; the last is the budget.",
        "Sizes",
        commands=(),
        default_text="powers of two up to the budget",
    )
    context_buckets: tuple[int, ...] | None = option(
        None,
        "Ascending contexts that steps of few tokens have programs of their own for, besides the whole.",
        "Sizes",
        commands=(),
        default_text="powers of four from 1,024 on GPUs, none elsewhere",
    )
    max_image_tokens: int | None = option(
        None,
        "Tokens of one image; larger images are made smaller.",
        "Sizes",
        commands=_RUNS,
        least=1,
        default_text=_by_platform("max_image_tokens"),
    )
    image_cache_tokens: int | None = option(
        None,
        "Tokens of images whose embeddings a device keeps.",
        "Sizes",
        commands=_RUNS,
        least=1,
        default_text="those of a step and of a few images",
    )
    prefix_caching: bool = option(True, "Share the KV pages of equal prompt beginnings.", "Sizes")
    speculate: Literal["ngram"] | None = option(
        None,
        "Guess outputs from their own text and the prompt's: ngram.",
        "Sizes",
        commands=_RUNS,
        default_text="predictions of requests and grammars only",
    )
    layer_loop: Literal["scan", "switch", "unroll"] | None = option(
        None, "How layers are looped.", "Devices", commands=(), default_text=_by_platform("layer_loop")
    )
    weights: Literal["keep", "dequantize"] = option(
        "keep", "Weights that are stored quantised stay so, or become --dtype while loading.", "Model", commands=_ALL
    )
    quantize: Literal["int8"] | None = option(
        None, "Quantise the layers' weights while they are loaded.", "Model", commands=_ALL, default_text="none"
    )
    max_waiting: int = option(1024, "Requests that may wait before further ones are answered 429.", "Limits", least=1)
    mesh: int | tuple[int, int, int] = option(
        1,
        "Devices for tensor parallelism: a number, or axes such as replica=1,kv=4,group=2.",
        "Devices",
        commands=_PLANS,
        parse=parse_mesh,
        metavar="MESH",
    )

    attention: Literal["native", "blocked", "mosaic", "pallas_tpu"] | None = option(
        None,
        "Attention kernels.",
        "Devices",
        commands=_PLANS,
        default_text="what the devices prefer",
    )
    matmul: Literal["native", "xla", "mosaic", "mosaic_fixed", "pallas_tpu"] | None = option(
        None,
        "Kernels of matrix products.",
        "Devices",
        commands=_PLANS,
        default_text="what the devices prefer",
    )

    deterministic: bool = option(
        False,
        "Products on GPUs add in one order, however many tokens a step has: --matmul mosaic_fixed. Elsewhere they do.",
        "Devices",
        commands=_PLANS,
    )

    programs: Path | None = option(
        None,
        "Directory of programs that `compile` wrote: they are loaded, with their sizes, and nothing is compiled.",
        "Devices",
        default_text="programs are compiled",
    )
    device_memory: float | None = option(
        None,
        "Share of each GPU's memory to take.",
        "Devices",
        commands=_RUNS,
        least=0.05,
        most=1,
        default_text="0.92, or what the environment says",
    )

    def matmul_on(self, platform: str) -> str | None:
        """Kernels of matrix products asked for on one of jax's platforms.

        Raises:
            ModelLoadError: others were asked for by name than --deterministic needs.
        """
        if not self.deterministic or platform != "gpu" or self.matmul == _FIXED:
            return self.matmul
        if self.matmul is not None:
            raise ModelLoadError(f"--deterministic takes --matmul {_FIXED}, not {self.matmul}")
        return _FIXED

    def chosen(self, platform: str) -> PlatformDefaults:
        """The platform's defaults, and in their place what was chosen."""
        defaults = platform_defaults(platform)
        budget = max(defaults.max_num_batched_tokens, self.max_num_seqs or 0)
        defaults = replace(defaults, max_num_batched_tokens=budget)
        given = {f.name: getattr(self, f.name, None) for f in fields(defaults)}
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})
