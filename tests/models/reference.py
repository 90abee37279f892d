"""An independent decoder in float64 NumPy: no cache, no batching, straight from the papers. The oracle of the fixtures.

It reads the checkpoint by its hub names and `config.json` by its hub fields, and shares no code with the package.
"""

import math

import numpy as np


def logits(config, weights, ids):
    """Logits [T, V] of a Llama, Mistral, Qwen2 or Qwen3 checkpoint. `weights`: hub name -> array."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    eps = config.get("rms_norm_eps", 1e-6)
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
        x = x + attention(config, own, rms_norm(x, own["input_layernorm.weight"], eps))
        h = rms_norm(x, own["post_attention_layernorm.weight"], eps)
        gate = linear(h, own, "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, own, "mlp.up_proj"), own, "mlp.down_proj")
    x = rms_norm(x, w["model.norm.weight"], eps)
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return x @ head.T


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)


def attention(config, w, x):
    heads = config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    steps = len(x)
    q = linear(x, w, "self_attn.q_proj").reshape(steps, heads, dim)
    k = linear(x, w, "self_attn.k_proj").reshape(steps, kv_heads, dim)
    v = linear(x, w, "self_attn.v_proj").reshape(steps, kv_heads, dim)
    if "self_attn.q_norm.weight" in w:
        q = rms_norm(q, w["self_attn.q_norm.weight"], config["rms_norm_eps"])
        k = rms_norm(k, w["self_attn.k_norm.weight"], config["rms_norm_eps"])
    q, k = rope(config, q, dim), rope(config, k, dim)
    window = config.get("sliding_window") or steps
    out = np.zeros((steps, heads, dim))
    for t in range(steps):
        seen = slice(max(0, t - window + 1), t + 1)
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = k[seen, shared] @ q[t, head] / math.sqrt(dim)
            p = np.exp(scores - scores.max())
            out[t, head] = p / p.sum() @ v[seen, shared]
    return linear(out.reshape(steps, heads * dim), w, "self_attn.o_proj")


def rope(config, x, dim):
    half = dim // 2
    freq = np.array([config["rope_theta"] ** (-2 * i / dim) for i in range(half)])
    scaling = config.get("rope_scaling")
    if scaling and scaling["rope_type"] == "linear":
        freq = freq / scaling["factor"]
    elif scaling:
        freq = np.array([llama3(f, scaling) for f in freq])
    angle = np.arange(len(x))[:, None, None] * freq
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


def llama3(freq, scaling):
    """The rule as Meta published it: three cases by wavelength."""
    wavelength = 2 * math.pi / freq
    original, low, high = (
        scaling["original_max_position_embeddings"],
        scaling["low_freq_factor"],
        scaling["high_freq_factor"],
    )
    if wavelength < original / high:
        return freq
    if wavelength > original / low:
        return freq / scaling["factor"]
    smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * freq / scaling["factor"] + smooth * freq
