"""GPT-OSS (`gpt_oss`): attention sinks, sliding and full layers in turn, biases everywhere, clamped SwiGLU experts.

Experts are stored as two tensors, [E, in, out], with gate and up in alternating columns; or quantised to MXFP4, as
[E, out, in], with gate and up in alternating rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from jaxserve.models.config import GluSpec, LayerSpec, ModelConfig, RouterSpec
from jaxserve.models.family import DECODER_NAMES, LAYER, Cut, Family, Names, Source
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_attention, read_layer_types, read_model, read_moe


def _read(raw: HubConfig) -> ModelConfig:
    moe = replace(
        read_moe(raw, RouterSpec("softmax_selected", bias=True), width="intermediate_size"),
        glu=GluSpec(
            sigmoid_scale=raw.number("swiglu_alpha", 1.702), limit=raw.number("swiglu_limit", 7.0), up_offset=1.0
        ),
        bias=True,
    )
    bias, window = raw.boolean("attention_bias", True), raw.integer("sliding_window", 128)
    attention = replace(read_attention(raw, qkv_bias=bias, out_bias=bias), sinks=True)
    layers = {
        "full_attention": LayerSpec(attention, moe),
        "sliding_attention": LayerSpec(replace(attention, window=window), moe),
    }
    kinds = read_layer_types(raw, lambda layer: "full_attention" if layer % 2 else "sliding_attention")
    return read_model(raw, tuple(layers[kind] for kind in kinds))


_EXPERTS = LAYER + "mlp.experts."
NAMES: Names = {
    **DECODER_NAMES,
    "attention.sinks": LAYER + "self_attn.sinks",
    "mlp.router.weight": LAYER + "mlp.router.weight",
    "mlp.router.bias": LAYER + "mlp.router.bias",
    "mlp.experts.gate_proj.weight": Source(_EXPERTS + "gate_up_proj", lambda t, _: t[..., 0::2].swapaxes(1, 2)),
    "mlp.experts.up_proj.weight": Source(_EXPERTS + "gate_up_proj", lambda t, _: t[..., 1::2].swapaxes(1, 2)),
    "mlp.experts.down_proj.weight": Source(_EXPERTS + "down_proj", lambda t, _: t.swapaxes(1, 2)),
    "mlp.experts.gate_proj.bias": Source(_EXPERTS + "gate_up_proj_bias", lambda t, _: t[..., 0::2]),
    "mlp.experts.up_proj.bias": Source(_EXPERTS + "gate_up_proj_bias", lambda t, _: t[..., 1::2]),
    "mlp.experts.down_proj.bias": _EXPERTS + "down_proj_bias",
}


def _rows(first: int, step: int) -> Cut:
    """Every `step`-th row of codes [E, rows, blocks, 16], then [E, rows, bytes], or of scales [E, rows, blocks]."""

    def cut(tensor: NDArray[Any], _: ModelConfig) -> NDArray[Any]:
        rows = tensor[:, first::step]
        return rows.reshape(*rows.shape[:2], -1) if rows.ndim == 4 else rows

    return cut


PACKED: Names = {
    f"mlp.experts.{ours}.{part}": Source(f"{_EXPERTS}{theirs}_{stored}", _rows(first, step))
    for ours, theirs, first, step in (
        ("gate_proj", "gate_up_proj", 0, 2),
        ("up_proj", "gate_up_proj", 1, 2),
        ("down_proj", "down_proj", 0, 1),
    )
    for part, stored in (("weight", "blocks"), ("weight_scale", "scales"))
}

FAMILY = Family(_read, NAMES, packed=PACKED)
