"""LLaVA-1.5 (`llava`): CLIP's tower and two layers before a Llama."""

from __future__ import annotations

from jaxserve.models.config import ModelConfig
from jaxserve.models.family import DECODER_NAMES, Family, Names, Source, flat
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_vision import read_clip, text_half, with_tower
from jaxserve.models.registry import find_family

_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What LLaVA-1.5's own configuration leaves to the defaults of Llama's."""


def _read(raw: HubConfig) -> ModelConfig:
    text = text_half(raw, model_type="llama", **_LLAMA)
    text.only("model_type", "llama", "mistral", "qwen2")
    decoder = find_family(str(text.fields["model_type"])).read(
        HubConfig({**text.fields, "model_type": str(raw.fields["model_type"])}, text.path)
    )
    return with_tower(decoder, read_clip(raw))


_TOWER = "vision_tower.encoder.layers.{layer}."
CLIP_BLOCKS: Names = {
    f"vision.blocks.{ours}.{part}": f"{_TOWER}{theirs}.{part}"
    for ours, theirs in (
        ("attention_norm", "layer_norm1"),
        ("attention.q_proj", "self_attn.q_proj"),
        ("attention.k_proj", "self_attn.k_proj"),
        ("attention.v_proj", "self_attn.v_proj"),
        ("attention.o_proj", "self_attn.out_proj"),
        ("mlp_norm", "layer_norm2"),
        ("mlp.up_proj", "mlp.fc1"),
        ("mlp.down_proj", "mlp.fc2"),
    )
    for part in ("weight", "bias")
}
"""Of the towers of CLIP and SigLIP alike."""
NAMES: Names = {
    **DECODER_NAMES,
    "vision.patch.weight": Source("vision_tower.embeddings.patch_embedding.weight", flat),
    "vision.class_token": "vision_tower.embeddings.class_embedding",
    "vision.positions": "vision_tower.embeddings.position_embedding.weight",
    **{f"vision.first_norm.{part}": f"vision_tower.pre_layrnorm.{part}" for part in ("weight", "bias")},
    **CLIP_BLOCKS,
    **{
        f"vision.joint.{ours}.{part}": f"multi_modal_projector.{theirs}.{part}"
        for ours, theirs in (("up_proj", "linear_1"), ("down_proj", "linear_2"))
        for part in ("weight", "bias")
    },
}
RENAMED = (
    ("language_model.", ""),
    ("model.language_model.", "model."),
    ("model.vision_tower.vision_model.", "vision_tower."),
    ("model.vision_tower.", "vision_tower."),
    ("vision_tower.vision_model.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
FAMILY = Family(
    _read,
    NAMES,
    ignored=(
        r"\.rotary_emb\.inv_freq$",
        r"^vision_tower\.embeddings\.position_ids$",
        r"^vision_tower\.(encoder\.layers\.\d+|post_layernorm)\.",  # the layers after the one that is read
    ),
    renamed=RENAMED,
)
