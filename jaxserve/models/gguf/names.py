"""Which tensor of a GGUF file each parameter is, for every architecture that can be read.

Names are the same for all architectures (ggml's docs/gguf.md); what a file stores otherwise than the hub stands here:
rows of q and k in pairs (llama), projections in one tensor (phi3, glm4), norms with their one added (gemma).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from jaxserve.models.config import AttentionSpec, ModelConfig
from jaxserve.models.families.phi3 import query_key_value_rows
from jaxserve.models.family import Cut, Names, Source

_BLOCK = "blk.{layer}."
_PROJECTIONS = {
    **{f"attention.{name}_proj": f"attn_{name}" for name in "qkv"},
    "attention.o_proj": "attn_output",
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    **{f"mlp.experts.{name}_proj": f"ffn_{name}_exps" for name in ("gate", "up", "down")},
    **{f"mlp.shared.{name}_proj": f"ffn_{name}_shexp" for name in ("gate", "up", "down")},
    "mlp.router": "ffn_gate_inp",
    "attention.q_a_proj": "attn_q_a",
    "attention.q_b_proj": "attn_q_b",
    "attention.kv_a_proj": "attn_kv_a_mqa",
    "attention.kv_b_proj": "attn_kv_b",
}
NAMES: Names = MappingProxyType(
    {
        "embed": "token_embd.weight",
        "norm.weight": "output_norm.weight",
        "lm_head": "output.weight",
        "attention_norm.weight": _BLOCK + "attn_norm.weight",
        "mlp_norm.weight": _BLOCK + "ffn_norm.weight",
        "attention_post_norm.weight": _BLOCK + "post_attention_norm.weight",
        "mlp_post_norm.weight": _BLOCK + "post_ffw_norm.weight",
        "attention.q_norm.weight": _BLOCK + "attn_q_norm.weight",
        "attention.k_norm.weight": _BLOCK + "attn_k_norm.weight",
        "attention.q_a_norm.weight": _BLOCK + "attn_q_a_norm.weight",
        "attention.kv_a_norm.weight": _BLOCK + "attn_kv_a_norm.weight",
        "attention.sinks": _BLOCK + "attn_sinks.weight",
        "mlp.router.selection_bias": _BLOCK + "exp_probs_b.bias",
        **{
            f"{ours}.{part}": f"{_BLOCK}{theirs}.{part}"
            for ours, theirs in _PROJECTIONS.items()
            for part in ("weight", "bias")
        },
    }
)
"""Parameter of ours -> tensor, as most architectures have it."""


def _halves_of_pairs(num_heads: str) -> Cut:
    """Undoes the order in which llama's converter stores the rows of a head: 0, H/2, 1, H/2 + 1 ..."""

    def cut(tensor: NDArray[Any], config: ModelConfig) -> NDArray[Any]:
        spec = config.layers[0].attention
        if not isinstance(spec, AttentionSpec):
            raise TypeError("only heads that rotate as a whole are stored in pairs")
        pairs = tensor.reshape(getattr(spec, num_heads), -1, 2, *tensor.shape[1:])
        return pairs.swapaxes(1, 2).reshape(tensor.shape)

    return cut


_LLAMA = {
    f"attention.{name}_proj.{part}": Source(f"{_BLOCK}attn_{name}.{part}", _halves_of_pairs(heads))
    for name, heads in (("q", "num_heads"), ("k", "num_kv_heads"))
    for part in ("weight", "bias")
}
_FUSED_GATE_UP = {
    "mlp.gate_proj.weight": Source(_BLOCK + "ffn_up.weight", lambda t, _: t[: len(t) // 2]),
    "mlp.up_proj.weight": Source(_BLOCK + "ffn_up.weight", lambda t, _: t[len(t) // 2 :]),
}
_FUSED_QKV = {
    f"attention.{name}_proj.weight": Source(_BLOCK + "attn_qkv.weight", query_key_value_rows(part))
    for part, name in enumerate("qkv")
}


@dataclass(frozen=True)
class Storage:
    """How an architecture's files store parameters."""

    names: Names
    added_to_norms: float = 0.0
    """What the converter added to the weights of all norms."""
    ignored: tuple[str, ...] = field(default=(r"^rope_(freqs|factors_long|factors_short)\.weight$",))
    """Regular expressions of tensors that the configuration has been made of, or that the model does not need."""


_PLAIN = Storage(NAMES)
_GEMMA = Storage(NAMES, added_to_norms=1.0)
STORAGE: Mapping[str, Storage] = MappingProxyType(
    {
        "llama": Storage({**NAMES, **_LLAMA}),
        "qwen2": _PLAIN,
        "qwen3": _PLAIN,
        "qwen3moe": _PLAIN,
        "gemma2": _GEMMA,
        "gemma3": _GEMMA,
        "phi3": Storage({**NAMES, **_FUSED_QKV, **_FUSED_GATE_UP}),
        "glm4": Storage({**NAMES, **_FUSED_GATE_UP}),
        "gpt-oss": Storage({**NAMES, "mlp_norm.weight": _BLOCK + "post_attention_norm.weight"}),
        "deepseek2": _PLAIN,
    }
)
"""Architecture -> how its files store parameters."""
