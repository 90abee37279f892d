"""Phi-3 and Phi-4 (`phi3`): Llama with q, k, v stored in one tensor, gate and up in another; longrope."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from jaxserve.models.config import LayerSpec, ModelConfig
from jaxserve.models.family import DECODER_NAMES, FUSED_GATE_UP, LAYER, Cut, Family, Names, Source
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_mlp, read_model


def _read(raw: HubConfig) -> ModelConfig:
    layer = LayerSpec(read_attention(raw, window=raw.optional_integer("sliding_window")), read_mlp(raw))
    return read_model(raw, (layer,) * raw.integer("num_hidden_layers"))


def query_key_value_rows(part: int) -> Cut:
    """The rows of q (0), k (1) or v (2) where the three are one tensor."""

    def cut(tensor: NDArray[Any], config: ModelConfig) -> NDArray[Any]:
        spec = config.layers[0].attention
        q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
        return tensor[(slice(q), slice(q, q + kv), slice(q + kv, None))[part]]

    return cut


NAMES: Names = {
    **DECODER_NAMES,
    **{
        f"attention.{name}_proj.weight": Source(LAYER + "self_attn.qkv_proj.weight", query_key_value_rows(part))
        for part, name in enumerate("qkv")
    },
    **FUSED_GATE_UP,
}

FAMILY = Family(_read, NAMES)
