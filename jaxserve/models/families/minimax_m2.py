"""MiniMax M2 (`minimax_m2`): one norm over all heads of q and of k, sigmoid-routed experts, none shared."""

from __future__ import annotations

from jaxserve.models.config import LayerSpec, ModelConfig, RouterSpec
from jaxserve.models.family import DECODER_NAMES, LAYER, Family, moe_names
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_model, read_moe


def _read(raw: HubConfig) -> ModelConfig:
    raw.only("scoring_func", "sigmoid")
    raw.only("qk_norm_type", "per_layer")
    count = raw.integer("num_hidden_layers")
    raw.only("attn_type_list", [1] * count)
    router = RouterSpec("sigmoid", normalise=True, selection_bias=raw.boolean("use_routing_bias", True))
    attention = read_attention(raw, qk_norm="all" if raw.boolean("use_qk_norm", True) else "none")
    return read_model(raw, (LayerSpec(attention, read_moe(raw, router, width="intermediate_size")),) * count)


NAMES = {
    **DECODER_NAMES,
    **moe_names("block_sparse_moe", gate="w1", up="w3", down="w2"),
    "mlp.router.selection_bias": LAYER + "block_sparse_moe.e_score_correction_bias",
}

FAMILY = Family(_read, NAMES, more_layers=True)
