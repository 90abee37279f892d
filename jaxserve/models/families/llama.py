"""Llama 2 and 3 (`llama`): grouped-query attention, SwiGLU, from 3.1 on the llama3 rope scaling."""

from __future__ import annotations

from jaxserve.models.config import LayerSpec, ModelConfig
from jaxserve.models.family import Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_mlp, read_model


def _read(raw: HubConfig) -> ModelConfig:
    bias = raw.boolean("attention_bias", False)
    attention = read_attention(raw, qkv_bias=bias, out_bias=bias)
    layer = LayerSpec(attention, read_mlp(raw, bias=raw.boolean("mlp_bias", False)))
    return read_model(raw, (layer,) * raw.integer("num_hidden_layers"))


FAMILY = Family(_read)
