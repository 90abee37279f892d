"""Writes GGUF files with the package `gguf` and its names, as its project's converters do: the tests' other side."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

_KEYS = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rope_theta": "rope.freq_base",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "head_dim": "attention.key_length",
    "sliding_window": "attention.sliding_window",
    "num_local_experts": "expert_count",
    "num_experts": "expert_count",
    "n_routed_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "routed_scaling_factor": "expert_weights_scale",
    "norm_topk_prob": "expert_weights_norm",
    "n_group": "expert_group_count",
    "topk_group": "expert_group_used_count",
    "q_lora_rank": "attention.q_lora_rank",
    "kv_lora_rank": "attention.kv_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "glm4": gguf.MODEL_ARCH.GLM4,
    "gpt_oss": gguf.MODEL_ARCH.GPT_OSS,
    "deepseek_v2": gguf.MODEL_ARCH.DEEPSEEK2,
    "deepseek_v3": gguf.MODEL_ARCH.DEEPSEEK2,
}


def write_gguf(path, config, tensors, *, more=None, vocabulary=None, kinds=None):
    """Write a checkpoint (hub names -> float32 arrays) with its config.json's fields.

    `kinds` maps a tensor's GGUF name to the type that it is quantised to; `more` are further fields.
    """
    arch = ARCHITECTURES[config["model_type"]]
    name = gguf.MODEL_ARCH_NAMES[arch]
    writer = gguf.GGUFWriter(path, name)
    fields = {f"{name}.{key}": config[ours] for ours, key in _KEYS.items() if config.get(ours) is not None}
    for key, value in {**fields, **_scaling(config, name), **_tokens(config, vocabulary), **(more or {})}.items():
        _add(writer, key, value)
    for tensor, array in _converted(config, tensors, arch):
        kind = (kinds or {}).get(tensor)
        if kind is None:
            writer.add_tensor(tensor, np.ascontiguousarray(array, np.float32))
        else:
            writer.add_tensor(tensor, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read_checkpoint(directory):
    """config.json and tensors of a directory in hub layout."""
    return json.loads((Path(directory) / "config.json").read_text()), load_file(Path(directory) / "model.safetensors")


def _add(writer, key, value):
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def _tokens(config, vocabulary):
    vocabulary = vocabulary or {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": [f"t{i}" for i in range(config["vocab_size"])],
        "token_type": [1] * config["vocab_size"],
        "merges": ["t 1"],
    }
    fields = {f"tokenizer.ggml.{name}": value for name, value in vocabulary.items()}
    return fields | {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}


def _scaling(config, name):
    if config["model_type"].startswith("deepseek"):
        nope, rope, value = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        sizes = {"key_length": nope + rope, "value_length": value}
        head = {f"{name}.attention.{key}": size for key, size in sizes.items()}
        head[f"{name}.expert_gating_func"] = 1 if config.get("scoring_func") == "softmax" else 2
    else:
        dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        turning = int(dim * config.get("partial_rotary_factor", 1.0))
        head = {f"{name}.rope.dimension_count": turning, f"{name}.attention.key_length": dim}
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("linear", "yarn"):
        head |= {f"{name}.rope.scaling.type": kind, f"{name}.rope.scaling.factor": float(scaling["factor"])}
    if kind == "longrope":
        stretch = config["max_position_embeddings"] / config["original_max_position_embeddings"]
        factor = np.sqrt(1 + np.log(stretch) / np.log(config["original_max_position_embeddings"]))
        head[f"{name}.rope.scaling.attn_factor"] = float(factor)
    if config["model_type"] == "gpt_oss":
        head[f"{name}.expert_feed_forward_length"] = config["intermediate_size"]
    original = scaling.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    if original and kind != "llama3":
        head[f"{name}.rope.scaling.original_context_length"] = original
    if "mscale_all_dim" in scaling:
        head[f"{name}.rope.scaling.yarn_log_multiplier"] = 0.1 * scaling["mscale_all_dim"]
    return head


def _converted(config, tensors, arch):
    """(GGUF name, array) of every tensor."""
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, array in (*_split_experts(config, tensors), *_rope_factors(config)):
        if name.endswith(("q_proj.weight", "q_proj.bias")) and arch == gguf.MODEL_ARCH.LLAMA:
            array = _permuted(array, config["num_attention_heads"])
        if name.endswith(("k_proj.weight", "k_proj.bias")) and arch == gguf.MODEL_ARCH.LLAMA:
            array = _permuted(array, config["num_key_value_heads"])
        if name.endswith("norm.weight") and config["model_type"].startswith("gemma"):
            array = array + np.float32(1)
        if name.startswith("rope_"):
            yield name, array
            continue
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
        name = name.replace("self_attn.sinks", "self_attn.sinks.weight")
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert known is not None, name
        yield known, array


def _permuted(array, heads):
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _rope_factors(config):
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "llama3":
        dim = config["hidden_size"] // config["num_attention_heads"]
        yield "rope_freqs.weight", np.array([_llama3(config, i, dim) for i in range(dim // 2)], np.float32)
    if scaling.get("type") == "longrope":
        for length in ("long", "short"):
            yield f"rope_factors_{length}.weight", np.array(scaling[f"{length}_factor"], np.float32)


def _llama3(config, pair, dim):
    """By what a frequency is divided (as the converter has it)."""
    scaling = config["rope_scaling"]
    low, high, factor = (scaling[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    old = scaling["original_max_position_embeddings"]
    wavelength = 2 * np.pi * config["rope_theta"] ** (2 * pair / dim)
    if wavelength < old / high:
        return 1.0
    if wavelength > old / low:
        return factor
    smooth = (old / wavelength - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)


def _split_experts(config, tensors):
    """Experts as one tensor of each projection; those of gpt-oss with gate and up apart, rows first."""
    stacks = {}
    for name, array in tensors.items():
        if config["model_type"] == "gpt_oss" and ".experts." in name:
            yield from _gpt_oss_experts(name, array)
        elif ".experts." in name:
            head, _, tail = name.partition(".experts.")
            number, _, rest = tail.partition(".")
            projection = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}.get(rest.split(".")[0])
            stacks.setdefault(
                f"{head}.experts.{projection}.weight".replace("block_sparse_moe", "mlp")
                if projection
                else f"{head}.experts.{rest}",
                {},
            )[int(number)] = array
        else:
            yield name, array
    for name, parts in stacks.items():
        yield name, np.stack([parts[number] for number in sorted(parts)])


def _gpt_oss_experts(name, array):
    head, _, part = name.partition(".experts.")
    kind = "bias" if part.endswith("_bias") else "weight"
    if part.startswith("down_proj"):
        yield f"{head}.experts.down_proj.{kind}", array if kind == "bias" else array.swapaxes(1, 2)
        return
    for start, projection in enumerate(("gate_proj", "up_proj")):
        rows = array[..., start::2]
        yield f"{head}.experts.{projection}.{kind}", rows if kind == "bias" else rows.swapaxes(1, 2)
