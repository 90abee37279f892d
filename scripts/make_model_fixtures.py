"""Write tests/fixtures/models: tiny random checkpoints in hub layout with the logits of the float64 reference.

    python scripts/make_model_fixtures.py

Shapes are odd on purpose: one key/value head, head counts that are no powers of two, one layer, vocabularies that are
no multiple of 128. Stored are bfloat16 weights (as checkpoints are), the prompt and its logits in float32.
"""

import importlib.util
import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "fixtures" / "models"
SHARED = {"hidden_size": 48, "intermediate_size": 56, "rms_norm_eps": 1e-5, "max_position_embeddings": 512}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
DEEPSEEK = {
    "vocab_size": 97,
    "num_key_value_heads": 1,
    "kv_lora_rank": 28,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "rope_theta": 10000.0,
    "moe_intermediate_size": 12,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
DEEPSEEK_YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
MODELS = {
    "llama_one_kv_head": {
        "model_type": "llama",
        "vocab_size": 131,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3,
        "tie_word_embeddings": True,
    },
    "llama_linear_rope": {
        "model_type": "llama",
        "vocab_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "attention_bias": True,
    },
    "mistral_window": {
        "model_type": "mistral",
        "vocab_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "sliding_window": 5,
        "rope_theta": 1000000.0,
    },
    "qwen2_bias": {
        "model_type": "qwen2",
        "vocab_size": 257,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3_one_layer": {
        "model_type": "qwen3",
        "vocab_size": 200,
        "num_hidden_layers": 1,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "head_dim": 20,
        "rope_theta": 1000000.0,
    },
    "mixtral": {
        "model_type": "mixtral",
        "vocab_size": 97,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "sliding_window": 9,
        "rope_theta": 1000000.0,
        "intermediate_size": 20,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "vocab_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "rope_theta": 1000000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
        },
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 16,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
    },
    "glm4_moe": {
        "model_type": "glm4_moe",
        "vocab_size": 97,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 20,
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
        "use_qk_norm": True,
        "rope_theta": 1000000.0,
        "moe_intermediate_size": 12,
        "n_routed_experts": 6,
        "n_shared_experts": 2,
        "num_experts_per_tok": 3,
        "n_group": 3,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
    },
    "minimax_m2": {
        "model_type": "minimax_m2",
        "vocab_size": 97,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 12,
        "rotary_dim": 8,
        "rope_theta": 5000000.0,
        "intermediate_size": 16,
        "num_local_experts": 7,
        "num_experts_per_tok": 3,
        "use_qk_norm": True,
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "vocab_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "rope_theta": 150000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "beta_fast": 4.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 64,
        },
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "attention_bias": True,
        "intermediate_size": 16,
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        "swiglu_limit": 7.0,
    },
    "gemma2": {
        "model_type": "gemma2",
        "vocab_size": 97,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 20,
        "rope_theta": 10000.0,
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 30.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "vocab_size": 97,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 24,
        "tie_word_embeddings": True,
    },
    "phi3": {
        "model_type": "phi3",
        "vocab_size": 97,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.67,
        "original_max_position_embeddings": 32,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 2.0, 3.0, 4.0],
        },
    },
    "glm4": {
        "model_type": "glm4",
        "vocab_size": 97,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
    },
    "deepseek_v3": {
        **DEEPSEEK,
        "model_type": "deepseek_v3",
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "q_lora_rank": 20,
        "rope_scaling": {**DEEPSEEK_YARN, "mscale": 1.0, "mscale_all_dim": 0.8},
        "n_routed_experts": 6,
        "n_group": 3,
        "topk_group": 2,
    },
    "kimi_k2": {
        **DEEPSEEK,
        "model_type": "kimi_k2",
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "q_lora_rank": None,
        "rope_scaling": {**DEEPSEEK_YARN, "beta_fast": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
        "n_routed_experts": 5,
        "n_group": 1,
        "topk_group": 1,
    },
    "deepseek_v32": {
        **DEEPSEEK,
        "model_type": "deepseek_v32",
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "q_lora_rank": 20,
        "rope_scaling": {**DEEPSEEK_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
        "n_routed_experts": 6,
        "n_group": 2,
        "topk_group": 1,
        "index_n_heads": 16,
        "index_head_dim": 20,
        "index_topk": 11,
    },
    "deepseek_v2": {
        **DEEPSEEK,
        "model_type": "deepseek_v2",
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "q_lora_rank": None,
        "rope_scaling": {**DEEPSEEK_YARN, "mscale": 0.8, "mscale_all_dim": 0.8},
        "scoring_func": "softmax",
        "topk_method": "group_limited_greedy",
        "norm_topk_prob": False,
        "n_routed_experts": 6,
        "n_group": 3,
        "topk_group": 2,
    },
}
GEMMA_NORMS = ("input", "post_attention", "pre_feedforward", "post_feedforward")
NORMS = {
    "gemma2": GEMMA_NORMS,
    "gemma3_text": GEMMA_NORMS,
    "glm4": ("input", "post_self_attn", "post_attention", "post_mlp"),
}


def shapes(config):
    """Hub name -> shape of every tensor."""
    width, vocab = config["hidden_size"], config["vocab_size"]
    table = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    if not config.get("tie_word_embeddings"):
        table["lm_head.weight"] = (vocab, width)
    for layer in range(config["num_hidden_layers"]):
        own = {**attention_shapes(config), **mlp_shapes(config, layer)}
        for norm in NORMS.get(config["model_type"], ("input", "post_attention")):
            own[f"{norm}_layernorm.weight"] = (width,)
        table |= {f"model.layers.{layer}.{name}": shape for name, shape in own.items()}
    return table


def attention_shapes(config):
    """The attention tensors of one layer."""
    kind, width = config["model_type"], config["hidden_size"]
    dim = config.get("head_dim") or width // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    if "kv_lora_rank" in config:
        return latent_shapes(config)
    if kind == "phi3":
        return {"self_attn.qkv_proj.weight": (q + 2 * kv, width), "self_attn.o_proj.weight": (width, q)}
    table = {}
    for name, out, into in (("q", q, width), ("k", kv, width), ("v", kv, width), ("o", width, q)):
        table[f"self_attn.{name}_proj.weight"] = (out, into)
        if (kind == "qwen2" or config.get("attention_bias")) and (name != "o" or kind in ("llama", "gpt_oss")):
            table[f"self_attn.{name}_proj.bias"] = (out,)
    if kind in ("qwen3", "qwen3_moe", "gemma3_text") or (kind == "glm4_moe" and config["use_qk_norm"]):
        table["self_attn.q_norm.weight"] = table["self_attn.k_norm.weight"] = (dim,)
    if kind == "minimax_m2":
        table["self_attn.q_norm.weight"], table["self_attn.k_norm.weight"] = (q,), (kv,)
    if kind == "gpt_oss":
        table["self_attn.sinks"] = (config["num_attention_heads"],)
    return table


def latent_shapes(config):
    """The tensors of latent attention, and of its indexer."""
    width, heads, q_rank, rank = (
        config[name] for name in ("hidden_size", "num_attention_heads", "q_lora_rank", "kv_lora_rank")
    )
    nope, turning, value = (config[name] for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    queries = heads * (nope + turning)
    table = {
        "kv_a_proj_with_mqa.weight": (rank + turning, width),
        "kv_a_layernorm.weight": (rank,),
        "kv_b_proj.weight": (heads * (nope + value), rank),
        "o_proj.weight": (width, heads * value),
    }
    if q_rank:
        table |= {"q_a_proj.weight": (q_rank, width), "q_a_layernorm.weight": (q_rank,)}
    table["q_b_proj.weight" if q_rank else "q_proj.weight"] = (queries, q_rank or width)
    if "index_topk" in config:
        dim, index_heads = config["index_head_dim"], config["index_n_heads"]
        table |= {
            "indexer.wq_b.weight": (index_heads * dim, q_rank),
            "indexer.wk.weight": (dim, width),
            "indexer.k_norm.weight": (dim,),
            "indexer.k_norm.bias": (dim,),
            "indexer.weights_proj.weight": (index_heads, width),
        }
    return {f"self_attn.{name}": shape for name, shape in table.items()}


def mlp_shapes(config, layer):
    """The feed-forward tensors of a layer."""
    kind, width, inner = config["model_type"], config["hidden_size"], config["intermediate_size"]
    if kind in ("phi3", "glm4"):
        return {"mlp.gate_up_proj.weight": (2 * inner, width), "mlp.down_proj.weight": (width, inner)}
    if kind in ("mixtral", "minimax_m2"):
        table = expert_shapes("block_sparse_moe", config["num_local_experts"], ("w1", "w3", "w2"), width, inner)
        if kind == "minimax_m2":
            table["block_sparse_moe.e_score_correction_bias"] = (config["num_local_experts"],)
        return table
    if kind == "gpt_oss":
        count = config["num_local_experts"]
        return {
            "mlp.router.weight": (count, width),
            "mlp.router.bias": (count,),
            "mlp.experts.gate_up_proj": (count, width, 2 * inner),
            "mlp.experts.gate_up_proj_bias": (count, 2 * inner),
            "mlp.experts.down_proj": (count, inner, width),
            "mlp.experts.down_proj_bias": (count, width),
        }
    hub = ("gate_proj", "up_proj", "down_proj")
    if kind == "qwen3_moe" and layer not in config["mlp_only_layers"]:
        return expert_shapes("mlp", config["num_experts"], hub, width, config["moe_intermediate_size"])
    if layer >= config.get("first_k_dense_replace", layer + 1):
        inner = config["moe_intermediate_size"]
        table = expert_shapes("mlp", config["n_routed_experts"], hub, width, inner)
        if kind != "deepseek_v2":
            table["mlp.gate.e_score_correction_bias"] = (config["n_routed_experts"],)
        return table | gated_shapes("mlp.shared_experts", hub, width, inner * config["n_shared_experts"])
    return gated_shapes("mlp", hub, width, inner)


def gated_shapes(prefix, names, width, inner):
    """A gated feed-forward layer; `names` of gate, up and down."""
    gate, up, down = (f"{prefix}.{name}.weight" for name in names)
    return {gate: (inner, width), up: (inner, width), down: (width, inner)}


def expert_shapes(prefix, count, names, width, inner):
    """A router and experts that are stored one by one."""
    table = {f"{prefix}.gate.weight": (count, width)}
    for number in range(count):
        table |= gated_shapes(f"{prefix}.experts.{number}", names, width, inner)
    return table


def draw(name, shape, rng, config):
    """A random tensor in the type it is stored in.

    Norms lie around one (Gemma's around zero), biases are small, matrices keep the scale of their input.
    """
    values = rng.standard_normal(shape)
    if name.endswith("correction_bias"):
        return (0.1 * values).astype(np.float32)
    if name.endswith("norm.weight"):
        values = 0.2 * values + (not config["model_type"].startswith("gemma"))
    elif "experts.gate_up_proj" in name:  # large enough for the clamp
        values = values * (4.0 * shape[1] ** -0.5 if len(shape) == 3 else 0.5)
    else:
        inputs = shape[1] if len(shape) == 3 else shape[-1]
        values = values * (0.2 if len(shape) == 1 else 1.0 if "embed" in name else 1.5 * inputs**-0.5)
    return values.astype(ml_dtypes.bfloat16)


def main():
    path = ROOT / "tests" / "models" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for number, (name, own) in enumerate(MODELS.items()):
        config = {**SHARED, "bos_token_id": 1, "eos_token_id": 2, **own}
        rng = np.random.default_rng(number)
        weights = {key: draw(key, shape, rng, config) for key, shape in sorted(shapes(config).items())}
        ids = rng.integers(0, config["vocab_size"], 45)
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        expected, routing = reference.logits(config, weights, ids)
        expected = expected.astype(np.float32)
        arrays = {} if routing is None else {"routing": routing.astype(np.int32)}
        np.savez_compressed(folder / "expected.npz", ids=ids.astype(np.int32), logits=expected, **arrays)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {size / 1000:.0f} kB, logits std {expected.std():.2f}")


if __name__ == "__main__":
    main()
