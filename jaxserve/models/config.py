"""What a model is: a `ModelConfig` made of one `LayerSpec` per layer. Plain data, no jax, no file access.

Families read it from `config.json` (see `hub.py` and `families/`); the decoder builds whatever the specs say, so a
model may mix layer kinds freely.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from jaxserve.models.vision.spec import VisionSpec

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu"]
QKNorm = Literal["none", "head", "all"]


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding (Su et al. 2021) of one layer; hashable, so equal layers share one table."""

    rotary_dim: int
    """Leading dimensions of each head that rotate (even); the rest pass through."""
    theta: float
    """Base of the geometric sequence of wavelengths."""
    kind: Literal["default", "linear", "llama3", "yarn", "dynamic", "longrope"] = "default"
    """How frequencies are stretched for longer contexts; see `rope.py`."""
    factor: float = 1.0
    """Stretch factor (linear, llama3, yarn, dynamic)."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 0
    """Context the model was trained on before stretching (all kinds but default and linear)."""
    interleaved: bool = False
    """Dimension 2i rotates with 2i + 1 instead of i with i + rotary_dim / 2."""
    attention_factor: float = 1.0
    """Factor on cos and sin (yarn, longrope)."""
    beta_fast: float = 32.0
    """Pairs that turn this often within the original context keep their frequency (yarn)."""
    beta_slow: float = 1.0
    """Pairs that turn less often than this are stretched in full (yarn)."""
    truncate: bool = True
    """Round the two bounds outwards to whole pairs (yarn)."""
    short_factors: tuple[float, ...] = ()
    """Stretch of each pair at positions within the original context (longrope)."""
    long_factors: tuple[float, ...] = ()
    """The same at later positions."""
    sections: tuple[int, ...] = ()
    """Pairs that rotate with each position axis (time, row, column; Qwen2-VL, 2024); none = with the one there is."""
    sections_interleaved: bool = False
    """Axes take turns among the pairs, time the rest, instead of one stretch of pairs each (Qwen3-VL)."""


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
    """RMSNorm on q and k before the rotation: over each head's H dimensions, or over all N*H (K*H) at once."""
    whole_images: bool = False
    """Tokens of an image see those behind them in the image, too (Gemma 3); the window counts from each as ever."""


@dataclass(frozen=True)
class IndexerSpec:
    """Lightning indexer of DeepSeek sparse attention (DeepSeek-V3.2, 2025): which positions a query attends to."""

    num_heads: int
    head_dim: int
    """Dimensions of an index query and of the cached index key; the leading ones rotate as those of attention do."""
    top_k: int
    """Positions that a query attends to; of equal scores the lower position wins."""
    interleaved: bool = False
    """Layout of the index keys' rotation, as `RopeSpec.interleaved`."""


@dataclass(frozen=True)
class LatentSpec:
    """Multi-head latent attention (DeepSeek-V2, 2024): keys and values of all heads are one cached latent vector.

    A head's key is (W_UK latent, rotated shared key), its value W_UV latent.
    """

    num_heads: int
    q_rank: int | None
    """Dimensions of the queries' own latent; None = queries are projected at once."""
    kv_rank: int
    """Dimensions of the cached latent."""
    nope_dim: int
    """Dimensions of a head's query and key that do not rotate; they come first."""
    value_dim: int
    scale: float
    """Factor on the scores before the softmax."""
    rope: RopeSpec
    """Rotation of the key that all heads share; `rope.rotary_dim` is its size."""
    norm_eps: float = 1e-6
    """Of the norms on the two latents."""
    indexer: IndexerSpec | None = None
    """Restricts each query to its best positions; None = it sees all before it."""

    @property
    def num_kv_heads(self) -> int:
        """All heads share the latent: what is cached is one key/value head."""
        return 1

    @property
    def head_dim(self) -> int:
        """Dimensions cached per position: the latent and the rotated key."""
        return self.kv_rank + self.rope.rotary_dim

    @property
    def window(self) -> None:
        """Latent attention sees all positions before a query's own."""
        return None


@dataclass(frozen=True)
class GluSpec:
    """Gated activation: activation(gate) * (up + up_offset)."""

    activation: Activation = "silu"
    sigmoid_scale: float = 1.0
    """silu(x) = x * sigmoid(sigmoid_scale * x)."""
    limit: float | None = None
    """Bound of gate (above) and up (on both sides)."""
    up_offset: float = 0.0


@dataclass(frozen=True)
class MlpSpec:
    """Gated feed-forward layer: down(activation(gate(x)) * up(x))."""

    width: int
    """F: inner width."""
    activation: Activation = "silu"
    bias: bool = False


@dataclass(frozen=True)
class RouterSpec:
    """How a token's experts and their weights are chosen from the router's scores."""

    scoring: Literal["softmax", "softmax_selected", "sigmoid"]
    """Score of an expert: softmax over all experts, over the selected ones only, or its own sigmoid."""
    normalise: bool = False
    """The weights of the selected experts are divided by their sum."""
    selection_bias: bool = False
    """A learned number per expert joins its score for the selection, not for its weight."""
    groups: int = 1
    """Experts form groups of equal size."""
    group_best: int = 2
    """A group scores the sum of so many of its best experts."""
    top_groups: int = 1
    """Groups that experts are selected from."""
    scaling: float = 1.0
    """Factor on all weights."""
    bias: bool = False


@dataclass(frozen=True)
class MoeSpec:
    """Mixture of experts: the weighted sum of `top_k` of `num_experts` gated layers, and of a shared one."""

    num_experts: int
    top_k: int
    width: int
    """F: inner width of one expert."""
    router: RouterSpec
    glu: GluSpec = GluSpec()
    bias: bool = False
    """The experts' projections have biases."""
    shared_width: int | None = None
    """Inner width of the expert that every token passes through, None = none."""


@dataclass(frozen=True)
class WeightFormat:
    """How the weight of a projection is held: as codes of 4 or 8 bits, each times the scale of its row and block."""

    code: Literal["int8", "uint4", "e4m3", "e2m1"]
    """Whole numbers of 8 or 4 bits (0 to 15), or floating-point numbers of 8 (OCP FP8) or 4 bits (OCP MX, two in a
    byte, the first in the low half)."""
    block: int | None = None
    """Neighbouring inputs that share a scale; None = all of a row. The last block of a row may be short."""
    scale: Literal["float32", "float16", "e8m0"] = "float32"
    """Scales are numbers, or exponents of two (biased by 127, in a byte)."""
    offsets: bool = False
    """To the code times its scale each block adds an offset. In tiles only."""
    tiled: bool = False
    """Rows lie side by side in tiles (`tiles.py`): GGUF's blocks, as the CPU's kernels read them. Needs a block."""

    def __str__(self) -> str:
        name = {"int8": "int8", "uint4": "int4", "e4m3": "fp8", "e2m1": "fp4"}[self.code]
        return f"{name}, {f'blocks of {self.block}' if self.block else 'a scale per row'}"


@dataclass(frozen=True)
class LayerSpec:
    """One decoder layer: norm, attention, residual, norm, feed-forward, residual."""

    attention: AttentionSpec | LatentSpec
    mlp: MlpSpec | MoeSpec
    post_norms: bool = False
    """Attention's and feed-forward's outputs are normed before they join the residual stream."""
    weights: WeightFormat | None = None
    """How the projections' weights are held; None = in the model's dtype, as all other parameters are."""
    unquantised: tuple[str, ...] = ()
    """Projections that are held in the model's dtype nevertheless ('attention.q_proj')."""
    formats: tuple[tuple[str, WeightFormat], ...] = ()
    """Projections that are held in a format of their own, by name."""
    adds_features: bool = False
    """Features of images join the residual stream after this layer (deepstack)."""


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
    norm_offset: float = 0.0
    """Added to the weight of every norm (Gemma stores weights around zero: 1)."""
    embed_scale: float = 1.0
    """Factor on the token embeddings."""
    logit_softcap: float | None = None
    """Logits l become logit_softcap * tanh(l / logit_softcap)."""
    embed_weights: WeightFormat | None = None
    """How the embedding table is held; None = in the model's dtype."""
    head_weights: WeightFormat | None = None
    """How an output projection of its own is held."""
    vision: VisionSpec | None = None
    """The tower that reads images; None = the model knows text only."""

    @property
    def num_layers(self) -> int:
        """L: decoder layers."""
        return len(self.layers)

    @property
    def routed_experts(self) -> tuple[int, int] | None:
        """(MoE layers, experts per token), None for a dense model."""
        chosen = [layer.mlp.top_k for layer in self.layers if isinstance(layer.mlp, MoeSpec)]
        return (len(chosen), chosen[0]) if chosen else None

    @property
    def routing_dtype(self) -> Literal["uint8", "int16"]:
        """The smallest type that holds the number of any routed expert."""
        most = max((layer.mlp.num_experts for layer in self.layers if isinstance(layer.mlp, MoeSpec)), default=0)
        return "uint8" if most <= 256 else "int16"

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


def head_counts(
    config: ModelConfig, kind: type[AttentionSpec] | type[LatentSpec] | None = None
) -> tuple[tuple[int, int], ...]:
    """The distinct (query heads, key/value heads) of the layers, or of those of one kind, most frequent first."""
    specs = (layer.attention for layer in config.layers)
    counts = Counter((spec.num_heads, spec.num_kv_heads) for spec in specs if kind is None or isinstance(spec, kind))
    return tuple(pair for pair, _ in counts.most_common())
