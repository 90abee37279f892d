"""Qwen3 with experts (`qwen3_moe`): softmax over all experts; some layers may be dense."""

from __future__ import annotations

from jaxserve.models.config import MlpSpec, ModelConfig, MoeSpec, RouterSpec
from jaxserve.models.families.qwen2 import read_qwen
from jaxserve.models.family import DECODER_NAMES, Family, moe_names
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_mlp, read_moe


def _read(raw: HubConfig) -> ModelConfig:
    bias = raw.boolean("attention_bias", False)
    router = RouterSpec("softmax", normalise=raw.boolean("norm_topk_prob", False))
    moe, dense = read_moe(raw, router, experts="num_experts"), read_mlp(raw)
    step, exceptions = raw.integer("decoder_sparse_step", 1), raw.integers("mlp_only_layers")

    def mlp(layer: int) -> MlpSpec | MoeSpec:
        return dense if (layer + 1) % step or layer in exceptions else moe

    return read_qwen(raw, qkv_bias=bias, out_bias=bias, qk_norm="head", mlp=mlp)


FAMILY = Family(_read, {**DECODER_NAMES, **moe_names("mlp", gate="gate_proj", up="up_proj", down="down_proj")})
