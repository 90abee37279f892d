"""What a model family has to say about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from jaxserve.models.config import ModelConfig
from jaxserve.models.hub import HubConfig

LAYER = "model.layers.{layer}."
"""Beginning of the names of a layer's tensors."""
DECODER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "embed": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "lm_head": "lm_head.weight",
        "attention_norm.weight": LAYER + "input_layernorm.weight",
        "mlp_norm.weight": LAYER + "post_attention_layernorm.weight",
        **{
            f"attention.{name}_proj.{part}": f"{LAYER}self_attn.{name}_proj.{part}"
            for name in "qkvo"
            for part in ("weight", "bias")
        },
        **{f"attention.{name}.weight": f"{LAYER}self_attn.{name}.weight" for name in ("q_norm", "k_norm")},
        **{
            f"mlp.{name}_proj.{part}": f"{LAYER}mlp.{name}_proj.{part}"
            for name in ("gate", "up", "down")
            for part in ("weight", "bias")
        },
    }
)
"""Parameter of ours (inside a layer: without the layer) -> tensor of the checkpoint, as Llama names them."""


def moe_names(prefix: str, gate: str, up: str, down: str) -> dict[str, str]:
    """Names of a router and of experts that are stored one by one, e.g. under prefix 'mlp', 'gate_proj', ..."""
    return {
        "mlp.router.weight": f"{LAYER}{prefix}.gate.weight",
        **{
            f"mlp.experts.{ours}_proj.weight": f"{LAYER}{prefix}.experts.{{expert}}.{theirs}.weight"
            for ours, theirs in (("gate", gate), ("up", up), ("down", down))
        },
    }


Cut = Callable[[NDArray[Any], ModelConfig], NDArray[Any]]
"""A tensor as stored -> the part of it that is one parameter, as a view: slices, transpositions and reshapes only."""


def flat(tensor: NDArray[Any], _: ModelConfig) -> NDArray[Any]:
    """The kernel of a convolution over patches that do not overlap [out, ...], as the matrix that it is."""
    return tensor.reshape(len(tensor), -1)


@dataclass(frozen=True)
class Source:
    """A parameter that is part of a stored tensor."""

    name: str
    """As in `Names`."""
    cut: Cut


Names = Mapping[str, str | Source]
"""Parameter path -> tensor name in the checkpoint, `{layer}` and `{expert}` standing for their numbers."""
FUSED_GATE_UP: Names = MappingProxyType(
    {
        "mlp.gate_proj.weight": Source(LAYER + "mlp.gate_up_proj.weight", lambda t, _: t[: len(t) // 2]),
        "mlp.up_proj.weight": Source(LAYER + "mlp.gate_up_proj.weight", lambda t, _: t[len(t) // 2 :]),
    }
)
"""Names where the rows of gate and up are one tensor."""


VISION = "vision."
"""Beginning of the paths of a tower's parameters; those of its blocks are named for all blocks."""


@dataclass(frozen=True)
class Family:
    """Everything that distinguishes one family from another."""

    read: Callable[[HubConfig], ModelConfig]
    """config.json -> ModelConfig; raises ModelLoadError."""
    names: Names = field(default_factory=lambda: DECODER_NAMES)
    """Where the parameters are."""
    packed: Names = field(default_factory=dict)
    """Where the codes (`.weight`) and scales (`.weight_scale`) of experts are that are stored as MXFP4."""
    ignored: tuple[str, ...] = (r"\.rotary_emb\.inv_freq$",)
    """Regular expressions of tensors that checkpoints carry but the model does not need."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(beginning of a tensor's name, what it stands for in `names`): checkpoints of one family differ in prefixes."""
    more_layers: bool = False
    """Checkpoints may hold layers after the last (multi-token prediction), which are ignored."""

    def canonical(self, tensor: str) -> str:
        """The name of a stored tensor as `names` has it."""
        for stored, ours in self.renamed:
            if tensor.startswith(stored):
                return ours + tensor.removeprefix(stored)
        return tensor

    def aliases(self, tensor: str) -> tuple[str, ...]:
        """A name of `names`, and all others that it may be stored under."""
        others = (stored + tensor.removeprefix(ours) for stored, ours in self.renamed if tensor.startswith(ours))
        return (tensor, *others)
