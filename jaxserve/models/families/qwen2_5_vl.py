"""Qwen2.5-VL (`qwen2_5_vl`): Qwen2 that rotates by time, row and column, and a tower with windows."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from jaxserve.models.config import ModelConfig
from jaxserve.models.families.qwen2 import read_qwen
from jaxserve.models.family import DECODER_NAMES, Cut, Family, Names, Source, flat
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_vision import read_qwen2_5_tower, text_half, with_tower

BLOCK = "visual.blocks.{layer}."
RENAMED = (("model.visual.", "visual."), ("model.language_model.", "model."))


def _read(raw: HubConfig) -> ModelConfig:
    text = text_half(raw, tie_word_embeddings=False)
    decoder = read_qwen(
        HubConfig({**text.fields, "model_type": raw.fields["model_type"]}, text.path),
        qkv_bias=True,
        out_bias=False,
        qk_norm="none",
    )
    return with_tower(decoder, read_qwen2_5_tower(raw, decoder.hidden_size))


def third(number: int) -> Cut:
    """Query, key or value of what is stored as one."""

    def cut(tensor: NDArray[Any], _: ModelConfig) -> NDArray[Any]:
        size = len(tensor) // 3
        return tensor[number * size : (number + 1) * size]

    return cut


ATTENTION: Names = {
    "vision.patch.weight": Source("visual.patch_embed.proj.weight", flat),
    **{
        f"vision.blocks.attention.{name}_proj.{part}": Source(f"{BLOCK}attn.qkv.{part}", third(number))
        for number, name in enumerate("qkv")
        for part in ("weight", "bias")
    },
    **{f"vision.blocks.attention.o_proj.{part}": f"{BLOCK}attn.proj.{part}" for part in ("weight", "bias")},
    **{
        f"vision.blocks.{ours}.{part}": f"{BLOCK}{theirs}.{part}"
        for ours, theirs in (("attention_norm", "norm1"), ("mlp_norm", "norm2"))
        for part in ("weight", "bias")
    },
}
NAMES: Names = {
    **DECODER_NAMES,
    **ATTENTION,
    **{
        f"vision.blocks.mlp.{name}_proj.{part}": f"{BLOCK}mlp.{name}_proj.{part}"
        for name in ("gate", "up", "down")
        for part in ("weight", "bias")
    },
    "vision.joint.norm.weight": "visual.merger.ln_q.weight",
    **{
        f"vision.joint.{ours}.{part}": f"visual.merger.mlp.{theirs}.{part}"
        for ours, theirs in (("up_proj", 0), ("down_proj", 2))
        for part in ("weight", "bias")
    },
}
FAMILY = Family(_read, NAMES, renamed=RENAMED)
