"""DeepSeek V3, V3.1 (`deepseek_v3`), Kimi K2 (`kimi_k2`) and GLM-4.7-Flash (`glm4_moe_lite`).

Latent attention; dense layers first, then sigmoid-routed experts in groups and a shared one.
"""

from __future__ import annotations

from jaxserve.models.config import LatentSpec, LayerSpec, ModelConfig, RouterSpec
from jaxserve.models.families.glm4_moe import MOE_NAMES, read_router
from jaxserve.models.family import DECODER_NAMES, LAYER, Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_latent_attention, read_mlp, read_model, read_moe

_FIRST_DENSE = {"glm4_moe_lite": 1, "deepseek_v2": 0}
"""Dense layers where `config.json` doesn't say, as transformers has them; elsewhere 3."""


def read_with(raw: HubConfig, attention: LatentSpec) -> ModelConfig:
    """DeepSeek V3's layers around this attention.

    Raises:
        ModelLoadError: another router than DeepSeek V3's, or a malformed field.
    """
    raw.only("scoring_func", "sigmoid")
    raw.only("topk_method", "noaux_tc")
    return layers_around(raw, attention, read_router(raw))


def layers_around(raw: HubConfig, attention: LatentSpec, router: RouterSpec) -> ModelConfig:
    """Dense layers first, then experts behind this router, and a shared one.

    Raises:
        ModelLoadError: a malformed field.
    """
    raw.only("moe_layer_freq", 1)
    layers = {
        "dense": LayerSpec(attention, read_mlp(raw)),
        "sparse": LayerSpec(attention, read_moe(raw, router, experts="n_routed_experts")),
    }
    count = raw.integer("num_hidden_layers")
    dense = raw.integer("first_k_dense_replace", _FIRST_DENSE.get(str(raw.fields["model_type"]), 3), least=0)
    kinds = raw.fields.get("mlp_layer_types") or ["dense" if layer < dense else "sparse" for layer in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or not all(kind in layers for kind in kinds):
        raise raw.bad("mlp_layer_types", f"must list {count} layers, each 'dense' or 'sparse'")
    return read_model(raw, tuple(layers[kind] for kind in kinds))


NAMES = {
    **DECODER_NAMES,
    **MOE_NAMES,
    **{
        f"attention.{ours}.weight": f"{LAYER}self_attn.{theirs}.weight"
        for ours, theirs in (
            ("q_a_proj", "q_a_proj"),
            ("q_a_norm", "q_a_layernorm"),
            ("q_b_proj", "q_b_proj"),
            ("kv_a_proj", "kv_a_proj_with_mqa"),
            ("kv_a_norm", "kv_a_layernorm"),
            ("kv_b_proj", "kv_b_proj"),
        )
    },
}

FAMILY = Family(lambda raw: read_with(raw, read_latent_attention(raw)), NAMES, more_layers=True)
