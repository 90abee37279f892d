"""Mistral (`mistral`): Llama with an optional sliding window on every layer."""

from __future__ import annotations

from jaxserve.models.config import LayerSpec, ModelConfig
from jaxserve.models.family import Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_mlp, read_model


def _read(raw: HubConfig) -> ModelConfig:
    layer = LayerSpec(read_attention(raw, window=raw.optional_integer("sliding_window")), read_mlp(raw))
    return read_model(raw, (layer,) * raw.integer("num_hidden_layers"))


FAMILY = Family(_read)
