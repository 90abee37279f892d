"""Gemma 3, text (`gemma3_text`): Gemma 2 with norms on q and k, and a short-waved rotation in sliding layers."""

from __future__ import annotations

from jaxserve.models.config import ModelConfig
from jaxserve.models.families.gemma2 import NAMES, gemma_defaults, read_gemma
from jaxserve.models.family import Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_layer_types


def _read(raw: HubConfig) -> ModelConfig:
    raw = gemma_defaults(raw, rope_theta=1000000.0)
    local = {"rope_theta": raw.number("rope_local_base_freq", 10000.0), "rope_scaling": None}
    sources = {"full_attention": raw, "sliding_attention": HubConfig({**raw.fields, **local}, raw.path)}
    bias = raw.boolean("attention_bias", False)
    attention = {
        kind: read_attention(source, qkv_bias=bias, out_bias=bias, qk_norm="head", layer_type=kind)
        for kind, source in sources.items()
    }
    period = raw.integer("sliding_window_pattern", 6)
    kinds = read_layer_types(raw, lambda layer: "sliding_attention" if (layer + 1) % period else "full_attention")
    return read_gemma(raw, kinds, attention)


FAMILY = Family(_read, NAMES)
