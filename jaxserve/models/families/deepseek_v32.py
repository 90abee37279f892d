"""DeepSeek V3.2 (`deepseek_v32`), GLM-5 and 5.1 (`glm_moe_dsa`): DeepSeek V3 with an indexer in every layer."""

from __future__ import annotations

from dataclasses import replace

from jaxserve.models.config import IndexerSpec, ModelConfig
from jaxserve.models.families.deepseek_v3 import NAMES as DENSE_NAMES
from jaxserve.models.families.deepseek_v3 import read_with
from jaxserve.models.family import LAYER, Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_latent_attention


def _read(raw: HubConfig) -> ModelConfig:
    count = raw.integer("num_hidden_layers")
    raw.only("indexer_types", ["full"] * count)  # GLM-5.2 shares one layer's selection with the next ones
    raw.only("index_topk_pattern", "F" * count)
    raw.only("index_topk_freq", 1)
    attention = read_latent_attention(raw)
    indexer = IndexerSpec(
        raw.integer("index_n_heads"),
        raw.integer("index_head_dim"),
        raw.integer("index_topk"),
        interleaved=raw.boolean("indexer_rope_interleave", raw.fields["model_type"] == "glm_moe_dsa"),
    )
    if indexer.head_dim < attention.rope.rotary_dim:
        raise raw.bad("index_head_dim", f"must be at least qk_rope_head_dim ({attention.rope.rotary_dim})")
    return read_with(raw, replace(attention, indexer=indexer))


_INDEXER = LAYER + "self_attn.indexer."
NAMES = {
    **DENSE_NAMES,
    "attention.indexer.q_proj.weight": _INDEXER + "wq_b.weight",
    "attention.indexer.k_proj.weight": _INDEXER + "wk.weight",
    "attention.indexer.k_norm.weight": _INDEXER + "k_norm.weight",
    "attention.indexer.k_norm.bias": _INDEXER + "k_norm.bias",
    "attention.indexer.weights_proj.weight": _INDEXER + "weights_proj.weight",
}

FAMILY = Family(_read, NAMES, more_layers=True)
