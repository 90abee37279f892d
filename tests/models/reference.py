"""An independent decoder in float64 NumPy: no cache, no batching, straight from the papers. The oracle of the fixtures.

It reads the checkpoint by its hub names and `config.json` by its hub fields, and shares no code with the package.
"""

import math

import numpy as np


def logits(config, weights, ids, images=None):
    """Logits [T, V] of a checkpoint (hub name -> array), and its experts [MoE layers, T, k], ascending, or None.

    `images`: which tokens are of images, bool [T]; and for these what takes the place of the embedding and what is
    added after each of the first layers, [tokens, 1 + layers, D].
    """
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    gemma = config["model_type"].startswith("gemma")
    if gemma:
        w = {name: value + 1 if name.endswith("norm.weight") else value for name, value in w.items()}
    eps = config.get("rms_norm_eps", 1e-6)
    x = w["model.embed_tokens.weight"][ids] * (math.sqrt(config["hidden_size"]) if gemma else 1.0)
    where, parts = images or (np.zeros(len(ids), bool), np.zeros((0, 1, config["hidden_size"])))
    x[where] = parts[:, 0]
    routing = []
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        own = {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}
        before, after, mlp_before, mlp_after = norm_names(config)
        y = attention(config, own, rms_norm(x, own[before], eps), layer)
        x = x + (rms_norm(y, own[after], eps) if after else y)
        y, chosen = feed_forward(config, own, rms_norm(x, own[mlp_before], eps))
        x = x + (rms_norm(y, own[mlp_after], eps) if mlp_after else y)
        if layer + 1 < parts.shape[1]:
            x[where] += parts[:, layer + 1]
        if chosen is not None:
            routing.append(np.sort(chosen, axis=-1))
    x = rms_norm(x, w["model.norm.weight"], eps)
    out = x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
    return cap(out, config.get("final_logit_softcapping")), np.array(routing) if routing else None


def norm_names(config):
    """Norms before and after attention, before and after the feed-forward layer."""
    if config["model_type"].startswith("gemma"):
        names = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    elif config["model_type"] == "glm4":
        names = ("input", "post_self_attn", "post_attention", "post_mlp")
    else:
        names = ("input", None, "post_attention", None)
    return tuple(name and name + "_layernorm.weight" for name in names)


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def cap(x, bound):
    return bound * np.tanh(x / bound) if bound else x


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attention(config, w, x, layer):
    if "self_attn.kv_b_proj.weight" in w:
        return latent_attention(config, w, x)
    heads = config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    steps = len(x)
    if "self_attn.qkv_proj.weight" in w:
        fused = linear(x, w, "self_attn.qkv_proj")
        q, k, v = np.split(fused, [heads * dim, (heads + kv_heads) * dim], axis=1)
    else:
        q, k, v = (linear(x, w, f"self_attn.{name}_proj") for name in "qkv")
    if len(w.get("self_attn.q_norm.weight", ())) == heads * dim != dim:  # one norm over all heads
        q, k = normed(config, w, q, k)
    q, k, v = q.reshape(steps, heads, dim), k.reshape(steps, kv_heads, dim), v.reshape(steps, kv_heads, dim)
    if len(w.get("self_attn.q_norm.weight", ())) == dim:
        q, k = normed(config, w, q, k)
    sliding = config.get("layer_types", ["sliding_attention"] * (layer + 1))[layer] == "sliding_attention"
    q, k = rope(config, q, dim, sliding), rope(config, k, dim, sliding)
    window = (config.get("sliding_window") if sliding else None) or steps
    scale = config.get("query_pre_attn_scalar", dim) ** -0.5
    sinks = w.get("self_attn.sinks", np.full(heads, -np.inf))
    out = np.zeros((steps, heads, dim))
    for t in range(steps):
        seen = slice(max(0, t - window + 1), t + 1)
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = cap(k[seen, shared] @ q[t, head] * scale, config.get("attn_logit_softcapping"))
            scores = np.append(scores, sinks[head])
            p = np.exp(scores - scores.max())
            out[t, head] = (p / p.sum())[:-1] @ v[seen, shared]
    return linear(out.reshape(steps, heads * dim), w, "self_attn.o_proj")


def latent_attention(config, w, x):
    """DeepSeek-V2, section 2.1, with every head's keys and values expanded; with an indexer, over what it selects."""
    heads, nope, turning = (config[name] for name in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"))
    rank, eps, steps = config["kv_lora_rank"], 1e-6, len(x)
    latent = x
    if config["q_lora_rank"]:
        latent = rms_norm(linear(x, w, "self_attn.q_a_proj"), w["self_attn.q_a_layernorm.weight"], eps)
    q = linear(latent, w, "self_attn.q_b_proj" if config["q_lora_rank"] else "self_attn.q_proj")
    q = q.reshape(steps, heads, nope + turning)
    down = linear(x, w, "self_attn.kv_a_proj_with_mqa")
    up = linear(rms_norm(down[:, :rank], w["self_attn.kv_a_layernorm.weight"], eps), w, "self_attn.kv_b_proj")
    up = up.reshape(steps, heads, nope + config["v_head_dim"])
    shared = rope(config, down[:, None, rank:], turning, False, pairs=True)[:, 0]
    q_turned = rope(config, q[..., nope:], turning, False, pairs=True)
    scaling = config.get("rope_scaling") or {}
    sharpened = 0.1 * scaling.get("mscale_all_dim", 0) * math.log(scaling.get("factor", 1)) + 1
    scale = (nope + turning) ** -0.5 * sharpened**2
    out = np.zeros((steps, heads, config["v_head_dim"]))
    for t in range(steps):
        seen = np.arange(t + 1)
        if "index_topk" in config:
            seen = selected(config, w, x[: t + 1], latent[t])
        for head in range(heads):
            scores = (up[seen, head, :nope] @ q[t, head, :nope] + shared[seen] @ q_turned[t, head]) * scale
            p = np.exp(scores - scores.max())
            out[t, head] = p / p.sum() @ up[seen, head, nope:]
    return linear(out.reshape(steps, -1), w, "self_attn.o_proj")


def selected(config, w, x, latent):
    """DeepSeek-V3.2, equation 1: the positions that the last token of x attends to; `latent` is its query latent."""
    heads, dim, turning = (config[name] for name in ("index_n_heads", "index_head_dim", "qk_rope_head_dim"))
    k = linear(x, w, "self_attn.indexer.wk")
    k = (k - k.mean(axis=1, keepdims=True)) / np.sqrt(k.var(axis=1, keepdims=True) + 1e-6)
    k = k * w["self_attn.indexer.k_norm.weight"] + w["self_attn.indexer.k_norm.bias"]
    q = linear(latent, w, "self_attn.indexer.wq_b").reshape(1, heads, dim)
    every = np.concatenate([k[:, None], np.repeat(q, len(x), axis=0)], axis=1)  # rotated by position, the last counts
    every = np.concatenate([rope(config, every[..., :turning], turning, False, pairs=False), every[..., turning:]], -1)
    hits = np.maximum(every[:, 0] @ every[-1, 1:].T, 0) * dim**-0.5
    scores = hits @ (linear(x[-1], w, "self_attn.indexer.weights_proj") * heads**-0.5)
    return np.argsort(-scores, kind="stable")[: config["index_topk"]]


def normed(config, w, q, k):
    eps = config["rms_norm_eps"]
    return rms_norm(q, w["self_attn.q_norm.weight"], eps), rms_norm(k, w["self_attn.k_norm.weight"], eps)


def feed_forward(config, w, x):
    """The layer's output, and the chosen experts of a sparse layer."""
    if "mlp.router.weight" in w:
        return gpt_oss_experts(config, w, x)
    prefix = "block_sparse_moe" if "block_sparse_moe.gate.weight" in w else "mlp"
    if f"{prefix}.gate.weight" in w:
        return experts(config, w, x, prefix)
    act = gelu_tanh if config["model_type"].startswith("gemma") else lambda z: z * sigmoid(z)
    if "mlp.gate_up_proj.weight" in w:
        gate, up = np.split(linear(x, w, "mlp.gate_up_proj"), 2, axis=1)
    else:
        gate, up = linear(x, w, "mlp.gate_proj"), linear(x, w, "mlp.up_proj")
    return linear(act(gate) * up, w, "mlp.down_proj"), None


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def experts(config, w, x, prefix):
    """Token after token, expert after expert."""
    gate, up, down = ("w1", "w3", "w2") if prefix == "block_sparse_moe" else ("gate_proj", "up_proj", "down_proj")
    out, chosen = np.zeros_like(x), []
    for t, token in enumerate(x):
        picked, weights = route(config, w, token, prefix)
        chosen.append(picked)
        for number, weight in zip(picked, weights, strict=True):
            own = f"{prefix}.experts.{number}."
            z = linear(token, w, own + gate)
            out[t] += weight * linear(z * sigmoid(z) * linear(token, w, own + up), w, own + down)
    if "mlp.shared_experts.gate_proj.weight" in w:
        z = linear(x, w, "mlp.shared_experts.gate_proj")
        out += linear(z * sigmoid(z) * linear(x, w, "mlp.shared_experts.up_proj"), w, "mlp.shared_experts.down_proj")
    return out, chosen


def route(config, w, token, prefix):
    """Experts of one token and their weights."""
    scores = linear(token, w, prefix + ".gate")
    count, top = len(scores), config["num_experts_per_tok"]
    bias = w.get("mlp.gate.e_score_correction_bias", w.get("block_sparse_moe.e_score_correction_bias"))
    if bias is None:
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
        allowed = np.arange(count)
        if config.get("topk_method") == "group_limited_greedy":
            groups = np.split(allowed, config["n_group"])
            best = sorted(groups, key=lambda group: -scores[group].max())[: config["topk_group"]]
            allowed = np.concatenate(best)
        picked = allowed[np.argsort(-scores[allowed])[:top]]
        weights = scores[picked] * config.get("routed_scaling_factor", 1.0)
        return picked, weights / weights.sum() if config.get("norm_topk_prob", True) else weights
    scores = sigmoid(scores)
    biased = scores + bias
    groups = np.split(np.arange(count), config.get("n_group", 1))
    best = sorted(groups, key=lambda group: -np.sort(biased[group])[-2:].sum())[: config.get("topk_group", 1)]
    allowed = np.concatenate(best)
    picked = allowed[np.argsort(-biased[allowed])[:top]]
    return picked, scores[picked] / scores[picked].sum() * config.get("routed_scaling_factor", 1.0)


def gpt_oss_experts(config, w, x):
    out, chosen = np.zeros_like(x), []
    for t, token in enumerate(x):
        scores = linear(token, w, "mlp.router")
        picked = np.argsort(-scores)[: config["num_experts_per_tok"]]
        chosen.append(picked)
        weights = np.exp(scores[picked]) / np.exp(scores[picked]).sum()
        for number, weight in zip(picked, weights, strict=True):
            both = token @ w["mlp.experts.gate_up_proj"][number] + w["mlp.experts.gate_up_proj_bias"][number]
            gate, up = np.minimum(both[0::2], config["swiglu_limit"]), both[1::2]
            up = np.clip(up, -config["swiglu_limit"], config["swiglu_limit"])
            inner = (up + 1) * gate * sigmoid(1.702 * gate)
            out[t] += weight * (inner @ w["mlp.experts.down_proj"][number] + w["mlp.experts.down_proj_bias"][number])
    return out, chosen


def rope(config, x, dim, sliding, pairs=None):
    """Rotate [T, N, H]; each pair of dimensions, neighbours or half a head apart, as a complex number."""
    rotary = config.get("rotary_dim") or int(dim * config.get("partial_rotary_factor", 1.0))
    local = sliding and "rope_local_base_freq" in config
    theta = config["rope_local_base_freq"] if local else config["rope_theta"]
    angle = np.zeros((len(x), rotary // 2))
    factor, axes = 1.0, "positions" in config
    for t in range(len(x)):
        freq = np.array([theta ** (-2 * i / rotary) for i in range(rotary // 2)])
        if not local:
            freq, factor = scaled(config, freq, t)
        angle[t] = np.array([config["positions"][axis][t] for axis in axes_of(config)]) * freq if axes else t * freq
    turn = factor * np.exp(1j * angle)[:, None]
    turning, rest = x[..., :rotary], x[..., rotary:]
    if config["model_type"] == "glm4" if pairs is None else pairs:
        turned = (turning[..., 0::2] + 1j * turning[..., 1::2]) * turn
        out = np.stack([turned.real, turned.imag], axis=-1).reshape(turning.shape)
    else:
        turned = (turning[..., : rotary // 2] + 1j * turning[..., rotary // 2 :]) * turn
        out = np.concatenate([turned.real, turned.imag], axis=-1)
    return np.concatenate([out, rest], axis=-1)


def axes_of(config):
    """Which of time, row and column each pair turns with: in stretches (Qwen2-VL), or in turns (Qwen3-VL)."""
    scaling = config["rope_scaling"]
    sections = scaling["mrope_section"]
    if not scaling.get("mrope_interleaved"):
        return [axis for axis, count in enumerate(sections) for _ in range(count)]
    axes = [0] * sum(sections)
    for axis in (1, 2):
        for turn in range(sections[axis]):
            axes[3 * turn + axis] = axis
    return axes


def scaled(config, freq, position):
    """Stretched frequencies at a position, and the factor on cos and sin."""
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        return freq / scaling["factor"], 1.0
    if kind == "llama3":
        return np.array([llama3(f, scaling) for f in freq]), 1.0
    if kind == "yarn":
        return yarn(config, freq, scaling)
    if kind == "longrope":
        original = config["original_max_position_embeddings"]
        stretch = config["max_position_embeddings"] / original
        factors = scaling["long_factor" if position >= original else "short_factor"]
        return freq / np.array(factors), math.sqrt(1 + math.log(stretch) / math.log(original))
    return freq, 1.0


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


def yarn(config, freq, scaling):
    """Peng et al. 2023, section 3.2 and 3.4, with the bounds by index as their code has them."""
    dims = 2 * len(freq)

    def index(turns):
        """Pair that turns so often within the original context."""
        per_turn = scaling["original_max_position_embeddings"] / (turns * 2 * math.pi)
        return dims * math.log(per_turn) / (2 * math.log(config["rope_theta"]))

    low, high = index(scaling.get("beta_fast", 32)), index(scaling.get("beta_slow", 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    out = []
    for pair, f in enumerate(freq):
        keep = 1 - min(max((pair - low) / (high - low), 0), 1)
        out.append(keep * f + (1 - keep) * f / scaling["factor"])
    if "mscale" in scaling:
        top, bottom = (0.1 * scaling[m] * math.log(scaling["factor"]) + 1 for m in ("mscale", "mscale_all_dim"))
        return np.array(out), top / bottom
    return np.array(out), 0.1 * math.log(scaling["factor"]) + 1
