"""Reading image towers from `config.json`: the text half of the file, and each kind of tower."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import Any

from jaxserve.models.config import AttentionSpec, LatentSpec, ModelConfig
from jaxserve.models.hub import HubConfig
from jaxserve.models.vision.spec import VisionSpec

_SHARED = ("tie_word_embeddings", "bos_token_id", "eos_token_id")
"""Fields of the text half that may stand outside of it."""


def text_half(raw: HubConfig, **defaults: Any) -> HubConfig:
    """The fields about the decoder: those of `text_config` where there is one, over `defaults` of its own class."""
    inner = raw.section("text_config").fields if raw.fields.get("text_config") is not None else raw.fields
    outer = {name: raw.fields[name] for name in _SHARED if raw.fields.get(name) is not None}
    fields = {**defaults, **outer, **{name: value for name, value in inner.items() if value is not None}}
    if "tie_word_embeddings" in raw.fields:
        fields["tie_word_embeddings"] = raw.fields["tie_word_embeddings"]
    return HubConfig(fields, raw.path)


def with_tower(config: ModelConfig, vision: VisionSpec) -> ModelConfig:
    """The decoder with a tower; its first layers add what the tower's taps give."""
    layers = tuple(
        replace(layer, adds_features=True) if number < len(vision.taps) else layer
        for number, layer in enumerate(config.layers)
    )
    if vision.whole:
        layers = tuple(replace(layer, attention=_seeing_whole_images(layer.attention)) for layer in layers)
    return replace(config, layers=layers, vision=vision)


def _seeing_whole_images(attention: AttentionSpec | LatentSpec) -> AttentionSpec:
    if not isinstance(attention, AttentionSpec):
        raise TypeError("attention over latents reads images like text only")
    return replace(attention, whole_images=True)


def read_clip(raw: HubConfig) -> VisionSpec:
    """LLaVA-1.5: CLIP's tower up to the layer that `vision_feature_layer` names, and two layers."""
    vision = _section(raw, image_size=224, patch_size=32, hidden_size=768, intermediate_size=3072)
    vision.only("model_type", "clip_vision_model")
    raw.only("vision_feature_select_strategy", "default", "full")
    blocks, width = vision.integer("num_hidden_layers", 12), vision.integer("hidden_size")
    (layer,) = raw.integers("vision_feature_layer") if "vision_feature_layer" in raw.fields else (-2,)
    depth = layer if layer >= 0 else blocks + 1 + layer
    if not 0 < depth <= blocks:
        raise raw.bad("vision_feature_layer", f"{layer} is not one of {blocks} layers")
    patch = vision.integer("patch_size")
    return VisionSpec(
        image_token=raw.integer("image_token_index", raw.integer("image_token_id", 32000)),
        patch=patch,
        width=width,
        depth=depth,
        num_heads=vision.integer("num_attention_heads", 12),
        inner=vision.integer("intermediate_size"),
        activation=vision.activation("hidden_act", "quick_gelu"),
        gated=False,
        norm="layer",
        norm_eps=vision.number("layer_norm_eps", 1e-5),
        joint="mlp",
        joint_width=raw.section("text_config").integer("hidden_size", 4096),
        joint_activation=raw.activation("projector_hidden_act", "gelu"),
        joint_bias=raw.boolean("multimodal_projector_bias", True),
        side=vision.integer("image_size") // patch,
        positions="table",
        class_token=True,
        keep_class=raw.fields.get("vision_feature_select_strategy") == "full",
        first_norm=True,
    )


def read_siglip(raw: HubConfig) -> VisionSpec:
    """Gemma 3: SigLIP's tower, the mean of each square of patches, a norm and a matrix; images are read whole."""
    vision = _section(raw, image_size=224, patch_size=16, hidden_size=768, intermediate_size=3072)
    vision.only("model_type", "siglip_vision_model")
    patch, tokens = vision.integer("patch_size"), raw.integer("mm_tokens_per_image", 256)
    side, merged = vision.integer("image_size") // patch, isqrt(tokens)
    if merged**2 != tokens or side % merged:
        raise raw.bad("mm_tokens_per_image", f"{tokens} is no square that divides {side} x {side} patches")
    before, after = raw.integer("boi_token_index", 255999), raw.integer("eoi_token_index", 256000)
    return VisionSpec(
        image_token=raw.integer("image_token_index", raw.integer("image_token_id", 262144)),
        before=(before,),
        after=(after,),
        around="\n\n",
        template_token=before,
        whole=True,
        patch=patch,
        width=vision.integer("hidden_size"),
        depth=vision.integer("num_hidden_layers", 12),
        num_heads=vision.integer("num_attention_heads", 12),
        inner=vision.integer("intermediate_size"),
        activation=vision.activation("hidden_act", "gelu_pytorch_tanh"),
        gated=False,
        norm="layer",
        norm_eps=vision.number("layer_norm_eps", 1e-6),
        joint="pool",
        joint_width=0,
        joint_eps=vision.number("layer_norm_eps", 1e-6),
        merge=side // merged,
        side=side,
        patch_bias=True,
        positions="table",
        last_norm=True,
    )


def read_qwen2_5_tower(raw: HubConfig, text_width: int) -> VisionSpec:
    """Qwen2.5-VL: windows with some full layers, gated feed-forward, RMSNorm, rotation by row and column."""
    vision = _section(raw, depth=32, hidden_size=3584, num_heads=16, intermediate_size=3420)
    patch, merge = vision.integer("patch_size", 14), vision.integer("spatial_merge_size", 2)
    window, width = vision.integer("window_size", 112) // patch, vision.integer("hidden_size")
    if window % merge:
        raise vision.bad("window_size", f"must be a multiple of {patch * merge} pixels")
    return VisionSpec(
        patch=patch,
        width=width,
        depth=vision.integer("depth"),
        num_heads=vision.integer("num_heads"),
        inner=vision.integer("intermediate_size"),
        activation=vision.activation("hidden_act", "silu"),
        gated=True,
        norm="rms",
        norm_eps=1e-6,
        joint="merger",
        joint_width=width * merge**2,
        frames=vision.integer("temporal_patch_size", 2),
        merge=merge,
        rope_theta=_tower_theta(vision),
        window=window,
        full_blocks=vision.integers("fullatt_block_indexes") or (7, 15, 23, 31),
        axes=3,
        **_qwen_tokens(raw, vision, text_width, image=151655, before=151652, after=151653),
    )


def read_qwen3_tower(raw: HubConfig, text_width: int) -> VisionSpec:
    """Qwen3-VL: full attention, LayerNorm, stretched position embeddings, features for the decoder's first layers."""
    vision = _section(raw, depth=27, hidden_size=1152, num_heads=16, intermediate_size=4304)
    merge, width = vision.integer("spatial_merge_size", 2), vision.integer("hidden_size")
    places = vision.integer("num_position_embeddings", 2304)
    if isqrt(places) ** 2 != places:
        raise vision.bad("num_position_embeddings", f"{places} must be a square number")
    taps = vision.integers("deepstack_visual_indexes")
    return VisionSpec(
        patch=vision.integer("patch_size", 16),
        width=width,
        depth=vision.integer("depth"),
        num_heads=vision.integer("num_heads"),
        inner=vision.integer("intermediate_size"),
        activation=vision.activation("hidden_act", "gelu_pytorch_tanh"),
        gated=False,
        norm="layer",
        norm_eps=1e-6,
        joint="merger",
        joint_width=width * merge**2,
        frames=vision.integer("temporal_patch_size", 2),
        merge=merge,
        patch_bias=True,
        positions="interpolated",
        positions_side=isqrt(places),
        rope_theta=_tower_theta(vision),
        taps=(8, 16, 24) if "deepstack_visual_indexes" not in vision.fields else taps,
        axes=3,
        **_qwen_tokens(raw, vision, text_width, image=151655, before=151652, after=151653),
    )


def _tower_theta(vision: HubConfig) -> float:
    rope = vision.section("rope_parameters")
    rope.only("rope_type", "axial", "default")
    return rope.number("rope_theta", 10000.0)


def _qwen_tokens(
    raw: HubConfig, vision: HubConfig, text_width: int, *, image: int, before: int, after: int
) -> dict[str, Any]:
    vision.only("in_channels", 3)
    vision.only("in_chans", 3)
    if vision.integer("out_hidden_size", text_width) != text_width:
        raise vision.bad("out_hidden_size", f"must be the decoder's hidden_size ({text_width})")
    return {
        "image_token": raw.integer("image_token_id", image),
        "before": (raw.integer("vision_start_token_id", before),),
        "after": (raw.integer("vision_end_token_id", after),),
    }


def _section(raw: HubConfig, **defaults: int) -> HubConfig:
    """`vision_config`, over the defaults of its class."""
    section = raw.section("vision_config")
    given = {name: value for name, value in section.fields.items() if value is not None}
    return HubConfig({**defaults, **given}, section.path)
