"""Qwen2 and Qwen2.5 (`qwen2`): bias on q, k and v; upper layers may have a sliding window."""

from __future__ import annotations

from collections.abc import Callable

from jaxserve.models.config import LayerSpec, MlpSpec, ModelConfig, MoeSpec, QKNorm
from jaxserve.models.family import Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_layer_types, read_mlp, read_model


def read_qwen(
    raw: HubConfig,
    *,
    qkv_bias: bool,
    out_bias: bool,
    qk_norm: QKNorm,
    mlp: Callable[[int], MlpSpec | MoeSpec] | None = None,
) -> ModelConfig:
    """What Qwen2 and Qwen3 share: layers from `max_window_layers` on slide where `use_sliding_window` says so.

    `mlp` gives the feed-forward layer of a layer number; by default all are dense.
    """
    dense = read_mlp(raw)
    slides = raw.boolean("use_sliding_window", False)
    first = raw.integer("max_window_layers", 28, least=0) if slides else 0
    kinds = read_layer_types(raw, lambda layer: "sliding_attention" if slides and layer >= first else "full_attention")
    window = raw.integer("sliding_window", 4096) if "sliding_attention" in kinds else None
    layers = tuple(
        LayerSpec(
            read_attention(
                raw,
                window=window if kind == "sliding_attention" else None,
                qkv_bias=qkv_bias,
                out_bias=out_bias,
                qk_norm=qk_norm,
            ),
            mlp(number) if mlp else dense,
        )
        for number, kind in enumerate(kinds)
    )
    return read_model(raw, layers)


def _read(raw: HubConfig) -> ModelConfig:
    return read_qwen(raw, qkv_bias=True, out_bias=False, qk_norm="none")


FAMILY = Family(_read)
