"""Mixtral (`mixtral`): Mistral with experts, their weights the softmax over the selected ones."""

from __future__ import annotations

from jaxserve.models.config import LayerSpec, ModelConfig, RouterSpec
from jaxserve.models.family import DECODER_NAMES, Family, moe_names
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_model, read_moe


def _read(raw: HubConfig) -> ModelConfig:
    attention = read_attention(raw, window=raw.optional_integer("sliding_window"))
    layer = LayerSpec(attention, read_moe(raw, RouterSpec("softmax", normalise=True), width="intermediate_size"))
    return read_model(raw, (layer,) * raw.integer("num_hidden_layers"))


FAMILY = Family(_read, {**DECODER_NAMES, **moe_names("block_sparse_moe", gate="w1", up="w3", down="w2")})
