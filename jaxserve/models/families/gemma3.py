"""Gemma 3 (`gemma3`, and of text alone `gemma3_text`): Gemma 2 with norms on q and k, and a short-waved rotation in
sliding layers; SigLIP's tower reads images, whose tokens see each other."""

from __future__ import annotations

from jaxserve.models.config import ModelConfig
from jaxserve.models.families.gemma2 import NAMES, gemma_defaults, read_gemma
from jaxserve.models.families.llava import CLIP_BLOCKS, RENAMED
from jaxserve.models.family import Family, Names, Source, flat
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_layer_types
from jaxserve.models.hub_vision import read_siglip, text_half, with_tower

_TEXT = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
}
"""What the models with a tower leave to the defaults of the text half's class."""


def _read(raw: HubConfig) -> ModelConfig:
    if raw.fields["model_type"] == "gemma3_text":
        return _read_text(raw)
    text = text_half(raw, **_TEXT)
    text.only("model_type", "gemma3_text")
    decoder = _read_text(HubConfig({**text.fields, "model_type": "gemma3"}, text.path))
    return with_tower(decoder, read_siglip(raw))


def _read_text(raw: HubConfig) -> ModelConfig:
    raw = gemma_defaults(raw, rope_theta=1000000.0)
    local = {"rope_theta": raw.number("rope_local_base_freq", 10000.0), "rope_scaling": None}
    sources = {"full_attention": raw, "sliding_attention": HubConfig({**raw.fields, **local}, raw.path)}
    bias = raw.boolean("attention_bias", False)
    attention = {
        kind: read_attention(source, qkv_bias=bias, out_bias=bias, qk_norm="head", layer_type=kind)
        for kind, source in sources.items()
    }
    period = raw.integer("sliding_window_pattern", 6)
    kinds = read_layer_types(raw, lambda layer: "sliding_attention" if (layer + 1) % period else "full_attention")
    return read_gemma(raw, kinds, attention)


VISION_NAMES: Names = {
    "vision.patch.weight": Source("vision_tower.embeddings.patch_embedding.weight", flat),
    "vision.patch.bias": "vision_tower.embeddings.patch_embedding.bias",
    "vision.positions": "vision_tower.embeddings.position_embedding.weight",
    **{f"vision.last_norm.{part}": f"vision_tower.post_layernorm.{part}" for part in ("weight", "bias")},
    **CLIP_BLOCKS,
    "vision.joint.norm.weight": "multi_modal_projector.mm_soft_emb_norm.weight",
    "vision.joint.proj": Source("multi_modal_projector.mm_input_projection_weight", lambda t, _: t.swapaxes(0, 1)),
}
FAMILY = Family(
    _read,
    {**NAMES, **VISION_NAMES},
    ignored=(r"^vision_tower\.embeddings\.position_ids$", r"^vision_tower\.head\."),
    renamed=RENAMED,
)
