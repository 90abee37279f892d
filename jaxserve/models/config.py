"""What a model is: a `ModelConfig` made of one `LayerSpec` per layer. Plain data, no jax, no file access.

Families read it from `config.json` (see `hub.py` and `families/`); the decoder builds whatever the specs say, so a
model may mix layer kinds freely.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu", "gelu_tanh"]
QKNorm = Literal["none", "head"]


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding (Su et al. 2021) of one layer; hashable, so equal layers share one table."""

    rotary_dim: int
    """Leading dimensions of each head that rotate (even); the rest pass through."""
    theta: float
    """Base of the geometric sequence of wavelengths."""
    kind: Literal["default", "linear", "llama3"] = "default"
    """How frequencies are stretched for longer contexts; see `rope.py`."""
    factor: float = 1.0
    """Stretch factor (linear, llama3)."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 0
    """Context the model was trained on before stretching (llama3)."""


@dataclass(frozen=True)
class AttentionSpec:
    """Grouped-query attention of one layer: N query heads share K key/value heads of H dimensions."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    """Factor on the scores before the softmax."""
    rope: RopeSpec
    window: int | None = None
    """Sliding window: a position sees itself and the `window` - 1 before it. None = all before it."""
    softcap: float | None = None
    """Scores s become softcap * tanh(s / softcap)."""
    sinks: bool = False
    """A learned logit per head takes part in the softmax without a value (gpt-oss)."""
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QKNorm = "none"
    """RMSNorm on q and k before the rotation; 'head' = over each head's H dimensions."""


@dataclass(frozen=True)
class MlpSpec:
    """Gated feed-forward layer: down(activation(gate(x)) * up(x))."""

    width: int
    """F: inner width."""
    activation: Activation = "silu"
    bias: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """One decoder layer: norm, attention, residual, norm, feed-forward, residual."""

    attention: AttentionSpec
    mlp: MlpSpec


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only language model, as its family read it from `config.json`."""

    model_type: str
    """The hub's name of the family; key of the registry."""
    vocab_size: int
    hidden_size: int
    """D: width of the residual stream."""
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    max_position_embeddings: int
    """Context length the model was made for, in tokens."""
    tie_embeddings: bool = False
    """The output projection is the embedding table."""
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    @property
    def num_layers(self) -> int:
        """L: decoder layers."""
        return len(self.layers)

    @property
    def num_kv_heads(self) -> int:
        """K: key/value heads of every layer (the cache has one shape for all layers)."""
        return self.layers[0].attention.num_kv_heads

    @property
    def head_dim(self) -> int:
        """H: dimensions of one head of every layer."""
        return self.layers[0].attention.head_dim


@dataclass(frozen=True)
class LayerGroup:
    """`repeats` times the same `period` of layers, beginning at layer `start`."""

    start: int
    period: tuple[LayerSpec, ...]
    repeats: int

    def layer(self, repeat: int, member: int) -> int:
        """Index in the model of layer `member` of the period's repetition number `repeat`."""
        return self.start + repeat * len(self.period) + member


def layer_groups(config: ModelConfig, loop: Literal["scan", "unroll"]) -> tuple[LayerGroup, ...]:
    """Cut the layers into repeating periods (scan), or make them one period that runs once (unroll).

    At each point the period that covers most layers wins, the shortest among equals: 24 x (sliding, full) is one
    group, and 3 dense layers before 58 sparse ones are two.
    """
    if loop == "unroll":
        return (LayerGroup(0, config.layers, 1),)
    groups: list[LayerGroup] = []
    start = 0
    while start < config.num_layers:
        rest = config.layers[start:]
        length = max(range(1, len(rest) + 1), key=lambda n: (_covered(rest, n), -n))
        repeats = _covered(rest, length) // length
        groups.append(LayerGroup(start, rest[:length], repeats))
        start += length * repeats
    return tuple(groups)


def _covered(layers: tuple[LayerSpec, ...], length: int) -> int:
    """Layers covered by repeating the first `length` of them; a period that does not repeat covers one layer."""
    repeats = 1
    while layers[repeats * length : (repeats + 1) * length] == layers[:length]:
        repeats += 1
    return repeats * length if repeats > 1 else 1 if length == 1 else 0


def head_counts(config: ModelConfig) -> tuple[tuple[int, int], ...]:
    """The distinct (query heads, key/value heads) of the model's layers, most frequent first."""
    counts = Counter((layer.attention.num_heads, layer.attention.num_kv_heads) for layer in config.layers)
    return tuple(pair for pair, _ in counts.most_common())
