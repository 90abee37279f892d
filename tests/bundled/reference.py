"""A decoder of its own in NumPy: reads the stored files, shares no code with trainer or engine."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy
import numpy as np
from safetensors.numpy import load_file

Weights = dict[str, np.ndarray]


def load_weights(model_dir: Path) -> tuple[dict, Weights]:
    """config.json and the weights in single precision."""
    config = json.loads((model_dir / "config.json").read_text())
    stored = load_file(model_dir / "model.safetensors")
    return config, {name: value.astype(np.float32) for name, value in stored.items()}


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def _rope(x_SNH: np.ndarray, theta: float) -> np.ndarray:
    half = x_SNH.shape[-1] // 2
    angles = np.outer(np.arange(len(x_SNH)), theta ** (-np.arange(half, dtype=np.float32) / half)).astype(np.float32)
    z = (x_SNH[..., :half] + 1j * x_SNH[..., half:]) * np.exp(1j * angles)[:, None, :]
    return np.concatenate([z.real, z.imag], -1)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _attention(config: dict, w: Weights, p: str, x_SD: np.ndarray) -> np.ndarray:
    S, H, eps = len(x_SD), config["head_dim"], config["rms_norm_eps"]
    heads = {}
    for kind in "qkv":
        y = (x_SD @ w[f"{p}self_attn.{kind}_proj.weight"].T).reshape(S, -1, H)
        if kind != "v":
            y = _rope(_norm(y, w[f"{p}self_attn.{kind}_norm.weight"], eps), config["rope_theta"])
        heads[kind] = y
    out = np.empty_like(heads["q"])
    group = config["num_attention_heads"] // config["num_key_value_heads"]
    for n in range(config["num_attention_heads"]):
        scores = heads["q"][:, n] @ heads["k"][:, n // group].T / np.sqrt(H)
        scores[np.triu_indices(S, 1)] = -np.inf
        out[:, n] = _softmax(scores) @ heads["v"][:, n // group]
    return out.reshape(S, -1) @ w[f"{p}self_attn.o_proj.weight"].T


def logits(config: dict, w: Weights, tokens: list[int]) -> np.ndarray:
    """Logits [S, V] of a sequence."""
    eps, embedding = config["rms_norm_eps"], w["model.embed_tokens.weight"]
    x = embedding[tokens]
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        x = x + _attention(config, w, p, _norm(x, w[p + "input_layernorm.weight"], eps))
        y = _norm(x, w[p + "post_attention_layernorm.weight"], eps)
        gate = y @ w[p + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    return _norm(x, w["model.norm.weight"], eps) @ embedding.T


def mean_loss(config: dict, w: Weights, sequences: list[list[int]]) -> float:
    """Nats per token after the first, over all sequences."""
    total, count = 0.0, 0
    for tokens in sequences:
        out = logits(config, w, tokens[:-1])
        out = out - out.max(-1, keepdims=True)
        log_probabilities = out - np.log(np.exp(out).sum(-1, keepdims=True))
        total -= log_probabilities[np.arange(len(tokens) - 1), tokens[1:]].sum()
        count += len(tokens) - 1
    return total / count
