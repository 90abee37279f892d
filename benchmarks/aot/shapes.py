"""`config.json` of a published model of each family: heads, experts, widths and vocabulary as they are."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.shapes import SHAPES as SHARED
from jaxserve.models import ModelConfig, choose_weights, load_config
from jaxserve.models.weight_choice import Quantize

Fields = dict[str, Any]
_YARN = {"type": "yarn", "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1}
_FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3", "activation_scheme": "dynamic"}
_MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}


def _dense(model_type: str, sizes: tuple[int, int, int, int, int, int], vocabulary: int, **more: Any) -> Fields:
    """A decoder; `sizes` are width, inner width, layers, heads, key/value heads and head dimension."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    heads = ("num_attention_heads", "num_key_value_heads", "head_dim")
    return {
        "model_type": model_type,
        **dict(zip((*names, *heads), sizes, strict=True)),
        "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        **more,
    }


def _latent(model_type: str, sizes: tuple[int, int, int, int], heads: tuple[int, int, int], **more: Any) -> Fields:
    """Latent attention and experts; `sizes`: width, inner of layer and expert, layers; `heads`: number, parts."""
    width, inner, expert, layers = sizes
    count, nope, value = heads
    return {
        **_dense(model_type, (width, inner, layers, count, count, nope), 129280),
        "moe_intermediate_size": expert,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": 64,
        "v_head_dim": value,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "rope_theta": 10000,
        "routed_scaling_factor": 2.5,
        **more,
    }


_DEEPSEEK = _latent(
    "deepseek_v3",
    (7168, 18432, 2048, 61),
    (128, 128, 128),
    q_lora_rank=1536,
    n_routed_experts=256,
    num_experts_per_tok=8,
    n_group=8,
    topk_group=4,
    first_k_dense_replace=3,
    max_position_embeddings=163840,
    rope_scaling={**_YARN, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0},
    quantization_config=_FP8,
)
_QWEN_VL = {"rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}}
_QWEN3_MOE = SHARED["qwen3-30b-a3b"]
_LLAMA = SHARED["llama-3.1-8b"]


def _without(fields: Fields, *names: str) -> Fields:
    return {name: value for name, value in fields.items() if name not in names}


def _text(fields: Fields, **more: Any) -> Fields:
    return {**_without(fields, "model_type", "architectures", "tie_word_embeddings"), **more}


SHAPES: dict[str, Fields] = {
    "llama-3.1-8b": _LLAMA,
    "llama-3.1-70b": {
        **_LLAMA,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "mistral-7b": _dense("mistral", (4096, 14336, 32, 32, 8, 128), 32768, sliding_window=None),
    "mixtral-8x7b": _dense(
        "mixtral", (4096, 14336, 32, 32, 8, 128), 32000, num_local_experts=8, num_experts_per_tok=2, sliding_window=None
    ),
    "phi-3-mini": _dense(
        "phi3", (3072, 8192, 32, 32, 32, 96), 32064, max_position_embeddings=4096, sliding_window=2047
    ),
    "qwen2-7b": _dense("qwen2", (3584, 18944, 28, 28, 4, 128), 152064),
    "qwen3-8b": SHARED["qwen3-8b"],
    "qwen3-30b-a3b": _QWEN3_MOE,
    "gemma-2-9b": _dense(
        "gemma2",
        (3584, 14336, 42, 16, 8, 256),
        256000,
        max_position_embeddings=8192,
        query_pre_attn_scalar=256,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        sliding_window=4096,
        hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True,
    ),
    "gemma-3-1b": _dense(
        "gemma3_text",
        (1152, 6912, 26, 4, 1, 256),
        262144,
        query_pre_attn_scalar=256,
        sliding_window=512,
        sliding_window_pattern=6,
        rope_local_base_freq=10000,
        hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True,
    ),
    "gemma-3-4b": {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "sliding_window": 1024,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "image_size": 896,
            "patch_size": 14,
        },
    },
    "glm-4-9b": _dense("glm4", (4096, 13696, 40, 32, 2, 128), 151552, partial_rotary_factor=0.5, attention_bias=True),
    "glm-4.5-air": {
        **_dense("glm4_moe", (4096, 10944, 46, 96, 8, 128), 151552, attention_bias=True, use_qk_norm=False),
        "moe_intermediate_size": 1408,
        "first_k_dense_replace": 1,
        "n_routed_experts": 128,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 131072,
    },
    "glm-4.7-flash": _latent(
        "glm4_moe_lite",
        (2048, 10240, 1536, 47),
        (20, 192, 256),
        q_lora_rank=768,
        n_routed_experts=64,
        num_experts_per_tok=4,
        first_k_dense_replace=1,
        vocab_size=154880,
        routed_scaling_factor=1.8,
    ),
    "glm-5": _latent(
        "glm_moe_dsa",
        (6144, 12288, 2048, 78),
        (64, 192, 256),
        q_lora_rank=2048,
        n_routed_experts=256,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        vocab_size=154880,
        index_n_heads=32,
        index_head_dim=128,
        index_topk=2048,
        quantization_config=_FP8,
    ),
    "gpt-oss-20b": {**SHARED["gpt-oss-20b"], "quantization_config": _MXFP4},
    "gpt-oss-120b": {
        **SHARED["gpt-oss-20b"],
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 18,
        "quantization_config": _MXFP4,
    },
    "minimax-m2": {
        **_dense("minimax_m2", (3072, 1536, 62, 48, 8, 128), 200064, max_position_embeddings=196608),
        "rotary_dim": 64,
        "num_local_experts": 256,
        "num_experts_per_tok": 8,
        "use_qk_norm": True,
        "qk_norm_type": "per_layer",
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "attn_type_list": [1] * 62,
        "quantization_config": {**_FP8, "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]},
    },
    "deepseek-v2-lite": _latent(
        "deepseek_v2",
        (2048, 10944, 1408, 27),
        (16, 128, 128),
        q_lora_rank=None,
        n_routed_experts=64,
        num_experts_per_tok=6,
        n_shared_experts=2,
        first_k_dense_replace=1,
        vocab_size=102400,
        topk_method="greedy",
        routed_scaling_factor=1.0,
        rope_scaling={**_YARN, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707},
    ),
    "deepseek-v3.1": _DEEPSEEK,
    "deepseek-v3.2": {
        **_DEEPSEEK,
        "model_type": "deepseek_v32",
        "index_n_heads": 64,
        "index_head_dim": 128,
        "index_topk": 2048,
    },
    "kimi-k2": {
        **_DEEPSEEK,
        "model_type": "kimi_k2",
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "n_routed_experts": 384,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "vocab_size": 163840,
        "rope_theta": 50000,
        "max_position_embeddings": 131072,
        "routed_scaling_factor": 2.827,
        "rope_scaling": {**_YARN, "factor": 32, "beta_fast": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "llava-1.5-7b": {
        "model_type": "llava",
        "text_config": {"model_type": "llama"},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
    },
    "qwen2.5-vl-7b": {
        "model_type": "qwen2_5_vl",
        **_without(_dense("", (3584, 18944, 28, 28, 4, 128), 152064), "model_type", "head_dim"),
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584},
    },
    "qwen3-vl-8b": {
        "model_type": "qwen3_vl",
        "text_config": _text(SHARED["qwen3-8b"], **_QWEN_VL),
        "vision_config": {"out_hidden_size": 4096},
    },
    "qwen3-vl-30b-a3b": {
        "model_type": "qwen3_vl_moe",
        "text_config": _text(_QWEN3_MOE, **_QWEN_VL),
        "vision_config": {"out_hidden_size": 2048},
    },
}
"""Figures of the models' own configurations."""


def model_config(name: str, *, quantize: Quantize | None = None, layers: int | None = None) -> ModelConfig:
    """The model of this name, perhaps quantised while it is loaded, perhaps with its first layers only."""
    fields = dict(SHAPES[name])
    text = fields.get("text_config", fields)
    text = {**text} if layers is None else {**text, **_shortened(text, layers)}
    fields = {**fields, "text_config": text} if "text_config" in fields else text
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(fields))
        return choose_weights(load_config(Path(directory)), "keep", quantize)


def _shortened(text: Fields, layers: int) -> Fields:
    lists = ("layer_types", "attn_type_list")
    return {"num_hidden_layers": layers, **{name: text[name][:layers] for name in lists if name in text}}
