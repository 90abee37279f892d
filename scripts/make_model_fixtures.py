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
}


def shapes(config):
    """Hub name -> shape of every tensor."""
    width, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    dim = config.get("head_dim") or width // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    table = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    if not config.get("tie_word_embeddings"):
        table["lm_head.weight"] = (vocab, width)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            table[f"{prefix}{norm}.weight"] = (width,)
        for name, out, into in (("q", q, width), ("k", kv, width), ("v", kv, width), ("o", width, q)):
            table[f"{prefix}self_attn.{name}_proj.weight"] = (out, into)
            if config.get("attention_bias") or (config["model_type"] == "qwen2" and name != "o"):
                table[f"{prefix}self_attn.{name}_proj.bias"] = (out,)
        if config["model_type"] == "qwen3":
            table[f"{prefix}self_attn.q_norm.weight"] = table[f"{prefix}self_attn.k_norm.weight"] = (dim,)
        for name, out, into in (("gate", inner, width), ("up", inner, width), ("down", width, inner)):
            table[f"{prefix}mlp.{name}_proj.weight"] = (out, into)
    return table


def draw(name, shape, rng):
    """A random tensor: norms around one, biases small, matrices keeping the scale of their input."""
    if name.endswith("norm.weight"):
        return 1 + 0.2 * rng.standard_normal(shape)
    scale = 0.2 if len(shape) == 1 else 1.0 if "embed" in name else 1.5 * shape[-1] ** -0.5
    return scale * rng.standard_normal(shape)


def main():
    path = ROOT / "tests" / "models" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for number, (name, own) in enumerate(MODELS.items()):
        config = {**SHARED, "bos_token_id": 1, "eos_token_id": 2, **own}
        rng = np.random.default_rng(number)
        weights = {
            key: draw(key, shape, rng).astype(ml_dtypes.bfloat16) for key, shape in sorted(shapes(config).items())
        }
        ids = rng.integers(0, config["vocab_size"], 45)
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        expected = reference.logits(config, weights, ids).astype(np.float32)
        np.savez_compressed(folder / "expected.npz", ids=ids.astype(np.int32), logits=expected)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {size / 1000:.0f} kB, logits std {expected.std():.2f}")


if __name__ == "__main__":
    main()
