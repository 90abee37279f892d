"""GLM-4.5, 4.5-Air, 4.6 and 4.7 (`glm4_moe`): dense layers first, then sigmoid-routed experts and a shared one."""

from __future__ import annotations

from jaxserve.models.config import LayerSpec, ModelConfig, RouterSpec
from jaxserve.models.family import DECODER_NAMES, LAYER, Family, moe_names
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_mlp, read_model, read_moe


def read_router(raw: HubConfig) -> RouterSpec:
    """The router that DeepSeek-V3 introduced: sigmoid scores, a bias for the selection, groups, scaled weights."""
    return RouterSpec(
        "sigmoid",
        normalise=raw.boolean("norm_topk_prob", True),
        selection_bias=True,
        groups=raw.integer("n_group", 1),
        top_groups=raw.integer("topk_group", 1),
        scaling=raw.number("routed_scaling_factor", 1.0),
    )


def _read(raw: HubConfig) -> ModelConfig:
    raw = HubConfig({"partial_rotary_factor": 0.5, **raw.fields}, raw.path)
    attention = read_attention(
        raw,
        qkv_bias=raw.boolean("attention_bias", False),
        qk_norm="head" if raw.boolean("use_qk_norm", False) else "none",
    )
    dense = LayerSpec(attention, read_mlp(raw))
    sparse = LayerSpec(attention, read_moe(raw, read_router(raw), experts="n_routed_experts"))
    count = raw.integer("num_hidden_layers")
    first = min(raw.integer("first_k_dense_replace", 1, least=0), count)
    return read_model(raw, (dense,) * first + (sparse,) * (count - first))


MOE_NAMES = {
    **moe_names("mlp", gate="gate_proj", up="up_proj", down="down_proj"),
    "mlp.router.selection_bias": LAYER + "mlp.gate.e_score_correction_bias",
    **{
        f"mlp.shared.{name}_proj.weight": f"{LAYER}mlp.shared_experts.{name}_proj.weight"
        for name in ("gate", "up", "down")
    },
}

FAMILY = Family(_read, {**DECODER_NAMES, **MOE_NAMES}, more_layers=True)
