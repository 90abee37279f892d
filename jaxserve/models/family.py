"""What a model family has to say about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from jaxserve.models.config import ModelConfig
from jaxserve.models.hub import HubConfig

_LAYER = "model.layers.{layer}."
DECODER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "embed": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "lm_head": "lm_head.weight",
        "attention_norm.weight": _LAYER + "input_layernorm.weight",
        "mlp_norm.weight": _LAYER + "post_attention_layernorm.weight",
        **{
            f"attention.{name}_proj.{part}": f"{_LAYER}self_attn.{name}_proj.{part}"
            for name in "qkvo"
            for part in ("weight", "bias")
        },
        **{f"attention.{name}.weight": f"{_LAYER}self_attn.{name}.weight" for name in ("q_norm", "k_norm")},
        **{
            f"mlp.{name}_proj.{part}": f"{_LAYER}mlp.{name}_proj.{part}"
            for name in ("gate", "up", "down")
            for part in ("weight", "bias")
        },
    }
)
"""Parameter of ours (inside a layer: without the layer) -> tensor of the checkpoint, as Llama names them."""


@dataclass(frozen=True)
class Family:
    """Everything that distinguishes one family from another."""

    read: Callable[[HubConfig], ModelConfig]
    """config.json -> ModelConfig; raises ModelLoadError."""
    names: Mapping[str, str] = field(default_factory=lambda: DECODER_NAMES)
    """Parameter path -> tensor name in the checkpoint, `{layer}` standing for the layer's number."""
    ignored: tuple[str, ...] = (r"\.rotary_emb\.inv_freq$",)
    """Regular expressions of tensors that checkpoints carry but the model does not need."""
