"""Gemma 2 (`gemma2`): norms before and after, soft-capped scores and logits, every other layer sliding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jaxserve.models.config import AttentionSpec, LayerSpec, MlpSpec, ModelConfig
from jaxserve.models.family import DECODER_NAMES, LAYER, Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_layer_types, read_model


def gemma_defaults(raw: HubConfig, **defaults: object) -> HubConfig:
    """Gemma's configurations leave out what is the default of its own classes."""
    raw.only("use_bidirectional_attention", False)
    shared = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096}
    return HubConfig({**shared, **defaults, **raw.fields}, raw.path)


def read_gemma(raw: HubConfig, kinds: tuple[str, ...], attention: Mapping[str, AttentionSpec]) -> ModelConfig:
    """What Gemma 2 and 3 share; `attention` of each kind of layer still lacks scale and window."""
    mlp = MlpSpec(raw.integer("intermediate_size"), raw.activation("hidden_activation", "gelu_pytorch_tanh"))
    scale, softcap = raw.number("query_pre_attn_scalar") ** -0.5, raw.optional_number("attn_logit_softcapping")
    windows = {"sliding_attention": raw.integer("sliding_window"), "full_attention": None}
    layers = {
        kind: LayerSpec(replace(spec, window=windows[kind], scale=scale, softcap=softcap), mlp, post_norms=True)
        for kind, spec in attention.items()
    }
    config = read_model(raw, tuple(layers[kind] for kind in kinds), tie_embeddings=True, states_stretched=True)
    return replace(
        config,
        norm_offset=1.0,
        embed_scale=config.hidden_size**0.5,
        logit_softcap=raw.optional_number("final_logit_softcapping"),
    )


def _read(raw: HubConfig) -> ModelConfig:
    raw = gemma_defaults(raw, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    bias = raw.boolean("attention_bias", False)
    attention = read_attention(raw, qkv_bias=bias, out_bias=bias)
    kinds = read_layer_types(raw, lambda layer: "full_attention" if layer % 2 else "sliding_attention")
    return read_gemma(raw, kinds, dict.fromkeys(("sliding_attention", "full_attention"), attention))


NAMES = {
    **DECODER_NAMES,
    "attention_post_norm.weight": LAYER + "post_attention_layernorm.weight",
    "mlp_norm.weight": LAYER + "pre_feedforward_layernorm.weight",
    "mlp_post_norm.weight": LAYER + "post_feedforward_layernorm.weight",
}

FAMILY = Family(_read, NAMES)
