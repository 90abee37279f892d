"""A `config.json` made of a GGUF file's fields, one declaration per architecture; the families read it as any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxserve.errors import ModelLoadError
from jaxserve.models.gguf.file import GgufFile
from jaxserve.models.gguf.pieces import numbers

Fields = dict[str, Any]
_COMMON = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "rotary_dim": "rope.dimension_count",
    "sliding_window": "attention.sliding_window",
}
"""Field of `config.json` -> field of the architecture."""
_EXPERTS = {
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}
_TOKENS = {"bos_token_id": "tokenizer.ggml.bos_token_id", "eos_token_id": "tokenizer.ggml.eos_token_id"}
_SOFTMAX, _SIGMOID = 1, 2
"""Values of `expert_gating_func`."""


@dataclass(frozen=True)
class Architecture:
    """How an architecture's fields become those of a family."""

    model_type: str
    fields: Mapping[str, str] = field(default_factory=dict)
    """Beside the common ones."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """What the architecture implies."""
    more: Callable[[GgufFile], Fields] = lambda file: {}
    """What takes a computation."""


def config_fields(file: GgufFile) -> Fields:
    """`config.json` of the model in a file.

    Raises:
        ModelLoadError: an architecture that is not supported.
    """
    known = _ARCHITECTURES.get(file.architecture)
    if known is None:
        names = ", ".join(_ARCHITECTURES)
        raise ModelLoadError(f"{file.path}: architecture {file.architecture!r} is not supported (supported: {names}).")
    taken = {**_COMMON, **known.fields}
    fields = {ours: _plain(value) for ours, theirs in taken.items() if (value := file.field(theirs)) is not None}
    tokens = {ours: int(file.fields[theirs]) for ours, theirs in _TOKENS.items() if theirs in file.fields}
    return {
        "model_type": known.model_type,
        "vocab_size": _vocab_size(file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        **tokens,
        **fields,
        **known.constants,
        **_rope_scaling(file),
        **known.more(file),
    }


def _plain(value: Any) -> Any:
    """Numbers of JSON; where every layer has its own and all are equal, the one."""
    if isinstance(value, np.ndarray):
        values = list(dict.fromkeys(value.tolist()))
        return values[0] if len(values) == 1 else values
    return float(np.format_float_positional(np.float32(value))) if isinstance(value, float) else value


def _vocab_size(file: GgufFile) -> int:
    table = file.tensors.get("token_embd.weight")
    if table is None:
        raise ModelLoadError(f"{file.path} lacks tensor token_embd.weight.")
    return table.shape[0]


def _rope_scaling(file: GgufFile) -> Fields:
    """How rotations are stretched: by factors of each pair, which are tensors, or by a rule."""
    factors = _factors(file)
    kind = file.field("rope.scaling.type")
    original = file.field("rope.scaling.original_context_length")
    if factors is not None:
        short, long = factors
        scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": long}
        attention = _plain(file.field("rope.scaling.attn_factor") or 1.0)
        context = original or file.field("context_length")
        return {"rope_scaling": {**scaling, "attention_factor": attention, "original_max_position_embeddings": context}}
    if kind in (None, "none"):
        return {}
    named = {"factor": file.field("rope.scaling.factor"), "original_max_position_embeddings": original}
    told = {name: _plain(value) for name, value in named.items() if value is not None}
    return {"rope_scaling": {"rope_type": kind, **told, **_yarn(file)}}


def _factors(file: GgufFile) -> tuple[list[float], list[float]] | None:
    """By what each pair's wavelength is multiplied, within the original context and beyond it."""
    names = ("rope_freqs", "rope_freqs") if "rope_freqs.weight" in file.tensors else _LONG
    found = [file.tensors.get(f"{name}.weight") for name in names]
    if None in found:
        return None
    short, long = (numbers(tensor).tolist() for tensor in found if tensor is not None)
    return short, long


_LONG = ("rope_factors_short", "rope_factors_long")


def _yarn(file: GgufFile) -> Fields:
    """What DeepSeek's files say about the sharpening of scores: 0.1 times the weight of the logarithm."""
    multiplier = file.field("rope.scaling.yarn_log_multiplier")
    if not multiplier:
        return {}
    weight = round(float(multiplier) / 0.1, 4)
    return {"mscale": weight, "mscale_all_dim": weight}


def _llama(file: GgufFile) -> Fields:
    """Mixtral's files are llama's with experts."""
    if not file.field("expert_count"):
        return {}
    return {"model_type": "mixtral", "num_local_experts": file.field("expert_count")}


def _gemma(layers: int) -> Callable[[GgufFile], Fields]:
    """The scale of scores, which files leave out: by the width of a head, in the largest model of width over heads."""

    def read(file: GgufFile) -> Fields:
        largest = file.field("block_count") == layers
        width = int(file.field("embedding_length")) // int(file.field("attention.head_count"))
        return {"query_pre_attn_scalar": width if largest else file.field("attention.key_length")}

    return read


def _gemma3(file: GgufFile) -> Fields:
    local = file.field("rope.freq_base_swa")
    return _gemma(62)(file) | ({"rope_local_base_freq": _plain(local)} if local else {})


def _deepseek(file: GgufFile) -> Fields:
    """Latent attention's sizes: with MLA the cached vector is the key, without it a head's."""
    key = file.field("attention.key_length_mla") or file.field("attention.key_length")
    value = file.field("attention.value_length_mla") or file.field("attention.value_length")
    rope = file.field("rope.dimension_count")
    if None in (key, value, rope):
        raise ModelLoadError(f"{file.path} lacks the sizes of latent attention.")
    gating = file.field("expert_gating_func") or _SOFTMAX
    return _second(file, gating) | {
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": key - rope,
        "v_head_dim": value,
        "scoring_func": {_SOFTMAX: "softmax", _SIGMOID: "sigmoid"}.get(gating, str(gating)),
        "rotary_dim": None,
        "head_dim": None,
    }


def _second(file: GgufFile, gating: int) -> Fields:
    """DeepSeek V2, whose experts are scored by a softmax; files of before groups were known choose from all."""
    if gating != _SOFTMAX:
        return {}
    grouped = (file.field("expert_group_count") or 1) > 1
    return {"model_type": "deepseek_v2", "topk_method": "group_limited_greedy" if grouped else "greedy"}


_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture("llama", {"num_experts_per_tok": "expert_used_count"}, more=_llama),
        "qwen2": Architecture("qwen2"),
        "qwen3": Architecture("qwen3"),
        "qwen3moe": Architecture("qwen3_moe", {**_EXPERTS, "num_experts": "expert_count"}, {"norm_topk_prob": True}),
        "gemma2": Architecture(
            "gemma2",
            {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"},
            more=_gemma(46),
        ),
        "gemma3": Architecture("gemma3_text", more=_gemma3),
        "phi3": Architecture("phi3"),
        "glm4": Architecture("glm4"),
        "gpt-oss": Architecture(
            "gpt_oss",
            {**_EXPERTS, "intermediate_size": "expert_feed_forward_length", "num_local_experts": "expert_count"},
            {"truncate": False},
        ),
        "deepseek2": Architecture(
            "deepseek_v3",
            {
                **_EXPERTS,
                "q_lora_rank": "attention.q_lora_rank",
                "kv_lora_rank": "attention.kv_lora_rank",
                "first_k_dense_replace": "leading_dense_block_count",
                "n_routed_experts": "expert_count",
                "n_shared_experts": "expert_shared_count",
                "n_group": "expert_group_count",
                "topk_group": "expert_group_used_count",
                "routed_scaling_factor": "expert_weights_scale",
                "norm_topk_prob": "expert_weights_norm",
            },
            more=_deepseek,
        ),
    }
)
"""`general.architecture` -> what it is here."""
