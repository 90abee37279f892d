"""GLM-4 dense (`glm4`): half of each head rotates in adjacent pairs; norms before and after."""

from __future__ import annotations

from jaxserve.models.config import LayerSpec, ModelConfig
from jaxserve.models.family import DECODER_NAMES, FUSED_GATE_UP, LAYER, Family, Names
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_mlp, read_model


def _read(raw: HubConfig) -> ModelConfig:
    raw = HubConfig({"partial_rotary_factor": 0.5, **raw.fields}, raw.path)
    attention = read_attention(raw, qkv_bias=raw.boolean("attention_bias", False), interleaved=True)
    return read_model(raw, (LayerSpec(attention, read_mlp(raw), post_norms=True),) * raw.integer("num_hidden_layers"))


NAMES: Names = {
    **DECODER_NAMES,
    **FUSED_GATE_UP,
    "attention_post_norm.weight": LAYER + "post_self_attn_layernorm.weight",
    "mlp_post_norm.weight": LAYER + "post_mlp_layernorm.weight",
}

FAMILY = Family(_read, NAMES)
