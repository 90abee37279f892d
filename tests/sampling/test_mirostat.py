"""mirostat on a real model: the perplexity of what it generates is the one asked for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sampling_oracle import Row, log_softmax
from sampling_stage import empty_state, outputs, pack, step

from jaxserve.sampling.columns import BITS, SAMPLE

TOKENS = 500
V = 1000
"""The model has 512 tokens; padded to the vocabulary that the other tests compile for."""


class TinyLlama:
    """A llama in float32 NumPy, one token at a time: just enough to generate with."""

    def __init__(self, directory: Path) -> None:
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.weights = load_file(directory / "model.safetensors")
        self.heads, self.kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        self.size = self.config["hidden_size"] // self.heads
        self.cache: list[tuple[list[Any], list[Any]]] = [([], []) for _ in range(self.config["num_hidden_layers"])]

    def weight(self, layer: int, name: str) -> Any:
        return self.weights[f"model.layers.{layer}.{name}.weight"]

    def norm(self, x: Any, scale: Any) -> Any:
        return x / np.sqrt((x * x).mean() + self.config["rms_norm_eps"]) * scale

    def rotate(self, x: Any, position: int) -> Any:
        theta = float(self.config.get("rope_theta") or self.config["rope_parameters"]["rope_theta"])
        angle = position * theta ** (-np.arange(0, self.size, 2) / self.size)
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = x[:, : self.size // 2], x[:, self.size // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=1)

    def attend(self, layer: int, x: Any, position: int) -> Any:
        q, k, v = ((self.weight(layer, f"self_attn.{n}_proj") @ x).reshape(-1, self.size) for n in "qkv")
        keys, values = self.cache[layer]
        keys.append(self.rotate(k, position))
        values.append(v)
        group = self.heads // self.kv_heads
        K, W = (np.repeat(np.stack(part), group, axis=1) for part in (keys, values))
        scores = np.einsum("hd,thd->ht", self.rotate(q, position), K) / math.sqrt(self.size)
        p = np.exp(scores - scores.max(1, keepdims=True))
        return self.weight(layer, "self_attn.o_proj") @ np.einsum("ht,thd->hd", p / p.sum(1, keepdims=True), W).reshape(
            -1
        )

    def logits(self, token: int, position: int) -> Any:
        embedding = self.weights["model.embed_tokens.weight"]
        x = embedding[token]
        for layer in range(len(self.cache)):
            x = x + self.attend(layer, self.norm(x, self.weight(layer, "input_layernorm")), position)
            y = self.norm(x, self.weight(layer, "post_attention_layernorm"))
            gate, up = self.weight(layer, "mlp.gate_proj") @ y, self.weight(layer, "mlp.up_proj") @ y
            x = x + self.weight(layer, "mlp.down_proj") @ (gate / (1 + np.exp(-gate)) * up)
        return embedding @ self.norm(x, self.weights["model.norm.weight"])


def generate(directory: Path, row: Row) -> list[float]:
    """Surprise (nats) of 500 generated tokens, under the distribution at the row's temperature, before truncation."""
    model, state, token = TinyLlama(directory), empty_state(64, V), 1
    surprises = []
    for position in range(TOKENS):
        logits = np.full(V, -np.inf, np.float32)
        logits[:512] = model.logits(token, position)
        row.position = position
        packed, mask = pack([row], [0], 2, V)
        if position:
            packed.view(SAMPLE)["flags"] &= ~BITS["fresh"]  # mu comes from the state
        state, out = step(state, np.stack([logits, logits]), packed, mask)
        token = outputs(np.asarray(out))[0].token
        surprises.append(-log_softmax(logits.astype(np.float64) / row.temperature)[token])
    return surprises


@pytest.mark.parametrize(("target", "temperature"), [(3.0, 1.0), (8.0, 1.6), (20.0, 2.0)])
def test_generated_text_has_the_target_perplexity(shared_dir: Path, target: float, temperature: float) -> None:
    directory = shared_dir / "real" / "models" / "stories260K"
    if not directory.is_dir():
        pytest.skip("the model stories260K is not there")
    surprises = generate(directory, Row(temperature=temperature, mirostat_target=target, seed=5))
    assert math.exp(np.mean(surprises)) == pytest.approx(target, rel=0.15)


def test_without_mirostat_the_perplexity_is_another(shared_dir: Path) -> None:
    """So that the test above can fail: at the temperature of target 8, plain sampling is far from 8."""
    directory = shared_dir / "real" / "models" / "stories260K"
    if not directory.is_dir():
        pytest.skip("the model stories260K is not there")
    perplexity = math.exp(np.mean(generate(directory, Row(temperature=1.6, seed=5))))
    assert abs(perplexity / 8 - 1) > 0.15
