"""Qwen3-VL, dense and with experts (`qwen3_vl`, `qwen3_vl_moe`): Qwen3 whose axes of rotation take turns, and a tower
whose features also join the decoder's first layers.

Experts are stored as two tensors, [E, in, out], the columns of gate before those of up.
"""

from __future__ import annotations

from jaxserve.models.config import ModelConfig
from jaxserve.models.families.qwen2_5_vl import ATTENTION, BLOCK, RENAMED
from jaxserve.models.family import DECODER_NAMES, LAYER, Family, Names, Source
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_vision import read_qwen3_tower, text_half, with_tower
from jaxserve.models.registry import find_family

_TEXT = {"qwen3_vl": "qwen3", "qwen3_vl_moe": "qwen3_moe"}


def _read(raw: HubConfig) -> ModelConfig:
    text, model_type = text_half(raw, tie_word_embeddings=False), str(raw.fields["model_type"])
    decoder = find_family(_TEXT[model_type]).read(HubConfig({**text.fields, "model_type": model_type}, text.path))
    return with_tower(decoder, read_qwen3_tower(raw, decoder.hidden_size))


_EXPERTS = LAYER + "mlp.experts."
NAMES: Names = {
    **DECODER_NAMES,
    **ATTENTION,
    "mlp.router.weight": LAYER + "mlp.gate.weight",
    "mlp.experts.gate_proj.weight": Source(
        _EXPERTS + "gate_up_proj", lambda t, _: t[..., : t.shape[-1] // 2].swapaxes(1, 2)
    ),
    "mlp.experts.up_proj.weight": Source(
        _EXPERTS + "gate_up_proj", lambda t, _: t[..., t.shape[-1] // 2 :].swapaxes(1, 2)
    ),
    "mlp.experts.down_proj.weight": Source(_EXPERTS + "down_proj", lambda t, _: t.swapaxes(1, 2)),
    "vision.patch.bias": "visual.patch_embed.proj.bias",
    "vision.positions": "visual.pos_embed.weight",
    **{
        f"vision.blocks.mlp.{ours}.{part}": f"{BLOCK}mlp.{theirs}.{part}"
        for ours, theirs in (("up_proj", "linear_fc1"), ("down_proj", "linear_fc2"))
        for part in ("weight", "bias")
    },
    **{
        f"vision.{path}.{ours}.{part}": f"visual.{name}.{theirs}.{part}"
        for path, name in (("joint", "merger"), *((f"taps.{n}", f"deepstack_merger_list.{n}") for n in range(8)))
        for ours, theirs in (("norm", "norm"), ("up_proj", "linear_fc1"), ("down_proj", "linear_fc2"))
        for part in ("weight", "bias")
    },
}
FAMILY = Family(_read, NAMES, renamed=RENAMED)
