"""Which programs are compiled: every family on every kind of chip, the models of the bounds in more sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.aot.shapes import SHAPES
from jaxserve.models.weight_choice import Quantize

CHIPS = ("v5e", "v6e", "v5p", "tpu7x")
_SIZES = {
    "small": ("v5e:2x2", "v6e", "v5p", "tpu7x"),
    "middle": ("v5e:2x4", "v6e:2x2", "v5p", "tpu7x"),
    "large": ("v5e:4x4", "v6e:2x4", "v5p:2x2x1", "tpu7x:2x2x1"),
    "huge": ("v5e:8x8", "v6e:4x8", "v5p:2x2x4", "tpu7x:2x2x2"),
}
"""Topologies that hold weights of about 20, 60, 150 and 700 GB with their cache."""
_SIZE_OF = {
    **dict.fromkeys(SHAPES, "small"),
    **dict.fromkeys(("qwen3-30b-a3b", "qwen3-vl-30b-a3b", "glm-4.7-flash", "gpt-oss-120b", "mixtral-8x7b"), "middle"),
    **dict.fromkeys(("llama-3.1-70b", "glm-4.5-air", "minimax-m2"), "large"),
    **dict.fromkeys(("deepseek-v3.1", "deepseek-v3.2", "kimi-k2", "glm-5"), "huge"),
}
_QUANTISED: dict[str, Quantize] = {"llama-3.1-70b": "int8", "mixtral-8x7b": "int8", "glm-4.5-air": "int8"}
_MORE_SIZES = (
    *("llama-3.1-8b", "llama-3.1-70b", "qwen3-8b", "qwen3-30b-a3b"),
    *("gpt-oss-20b", "glm-4.5-air", "minimax-m2", "deepseek-v3.1"),
)
"""Models with bounds of their own: also with few sequences, and with a chunk of a prompt."""


@dataclass(frozen=True)
class Program:
    """A forward program of a model on a topology."""

    model: str
    topology: str
    step: str
    """decode or prefill."""
    tokens: int
    """Of the bucket."""

    @property
    def name(self) -> str:
        """As in `--only`."""
        return f"{self.model}@{self.topology}/{self.step}{self.tokens}"

    @property
    def quantize(self) -> Quantize | None:
        """What the weights are made of while they are loaded."""
        return _QUANTISED.get(self.model)

    @property
    def rows(self) -> int:
        """Of the bucket."""
        return min(self.tokens, 64)


def programs() -> Iterator[Program]:
    """All of them, those with bounds first."""
    yield from (one for model in _MORE_SIZES for one in _of_model(model))
    yield from (one for model in SHAPES if model not in _MORE_SIZES for one in _of_model(model))


def _of_model(model: str) -> Iterator[Program]:
    for topology in _SIZES[_SIZE_OF[model]]:
        yield Program(model, topology, "decode", 64)
        if model in _MORE_SIZES:
            yield Program(model, topology, "decode", 16)
            yield Program(model, topology, "prefill", 2048)
