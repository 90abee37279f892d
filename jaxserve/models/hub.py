"""Reading `config.json`: typed access with clear errors, and the parts that all families share.

Two styles exist: the hub's (`rope_theta`, `rope_scaling`, `rotary_dim`) and that of transformers v5
(`rope_parameters`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import Activation, AttentionSpec, LayerSpec, MlpSpec, ModelConfig, QKNorm, RopeSpec

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_REQUIRED: Any = object()


class HubConfig:
    """Typed access to the fields of a `config.json`; every complaint is a `ModelLoadError` that names the field."""

    def __init__(self, fields: Mapping[str, Any], path: str) -> None:
        self.fields = fields
        self.path = path

    @classmethod
    def read(cls, model_dir: Path) -> HubConfig:
        """Parse `model_dir/config.json`.

        Raises:
            ModelLoadError: the directory or file is missing, or is not a JSON object.
        """
        path = model_dir / "config.json"
        if not model_dir.is_dir():
            raise ModelLoadError(f"Model directory {model_dir} does not exist.")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelLoadError(f"{model_dir} has no config.json.") from None
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{path} is not readable JSON: {error}.") from None
        if not isinstance(fields, dict):
            raise ModelLoadError(f"{path} does not hold a JSON object.")
        return cls(fields, str(path))

    def bad(self, field: str, problem: str) -> ModelLoadError:
        """The error for a field that is at fault."""
        return ModelLoadError(f"{self.path}: {field} {problem}.")

    def integer(self, field: str, default: int | None = _REQUIRED, *, least: int = 1) -> int:
        """An integer of at least `least`; null counts as absent."""
        value = self._get(field, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(field, f"must be an integer, not {value!r}")
        if value < least:
            raise self.bad(field, f"must be at least {least}, not {value}")
        return value

    def optional_integer(self, field: str) -> int | None:
        """A positive integer, or None when absent or null."""
        return None if self.fields.get(field) is None else self.integer(field)

    def number(self, field: str, default: float = _REQUIRED) -> float:
        """A finite positive number; null counts as absent."""
        value = self._get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise self.bad(field, f"must be a positive number, not {value!r}")
        return float(value)

    def boolean(self, field: str, default: bool) -> bool:
        """A boolean; null counts as absent."""
        value = self._get(field, default)
        if not isinstance(value, bool):
            raise self.bad(field, f"must be true or false, not {value!r}")
        return value

    def activation(self) -> Activation:
        """The feed-forward activation (`hidden_act`)."""
        name = self._get("hidden_act", "silu")
        if name not in _ACTIVATIONS:
            raise self.bad("hidden_act", f"{name!r} is not supported (supported: {', '.join(_ACTIVATIONS)})")
        return _ACTIVATIONS[name]

    def token_ids(self, field: str) -> tuple[int, ...]:
        """One token id or a list of them; empty when absent or null."""
        value = self.fields.get(field)
        values = value if isinstance(value, list) else [] if value is None else [value]
        for item in values:
            if isinstance(item, bool) or not isinstance(item, int):
                raise self.bad(field, f"must hold integers, not {item!r}")
        return tuple(values)

    def section(self, field: str) -> HubConfig:
        """A nested object; empty when absent or null."""
        value = self._get(field, {})
        if not isinstance(value, dict):
            raise self.bad(field, f"must be an object, not {value!r}")
        return HubConfig(value, f"{self.path}: {field}")

    def _get(self, field: str, default: Any) -> Any:
        value = self.fields.get(field)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise self.bad(field, "is missing")
        return default


def read_rope(
    raw: HubConfig, head_dim: int, *, layer_type: str | None = None, rotary_dim: int | None = None
) -> RopeSpec:
    """The rotary embedding of a layer, from either style of configuration.

    `layer_type` picks the entry where `rope_parameters` holds one object per layer type. `rotary_dim` overrides what
    the file says.

    Raises:
        ModelLoadError: a scaling kind that is not supported, or a malformed field.
    """
    scaling = raw.section("rope_scaling")
    modern = raw.section("rope_parameters")
    if layer_type is not None and layer_type in modern.fields:
        modern = modern.section(layer_type)
    source = HubConfig({**raw.fields, **scaling.fields, **modern.fields}, raw.path)
    kind = source.fields.get("rope_type") or source.fields.get("type") or "default"
    rotary = rotary_dim or source.optional_integer("rotary_dim")
    rotary = rotary or int(head_dim * source.number("partial_rotary_factor", 1.0))
    if rotary % 2 or rotary > head_dim:
        raise raw.bad("rotary_dim", f"must be even and at most head_dim ({head_dim}), not {rotary}")
    theta = source.number("rope_theta", 10000.0)
    if kind == "default":
        return RopeSpec(rotary, theta)
    if kind == "linear":
        return RopeSpec(rotary, theta, "linear", source.number("factor"))
    if kind == "llama3":
        return RopeSpec(
            rotary,
            theta,
            "llama3",
            source.number("factor"),
            source.number("low_freq_factor"),
            source.number("high_freq_factor"),
            source.integer("original_max_position_embeddings"),
        )
    raise raw.bad("rope_scaling", f"of type {kind!r} is not supported (supported: default, linear, llama3)")


def read_attention(
    raw: HubConfig,
    *,
    window: int | None = None,
    qkv_bias: bool = False,
    out_bias: bool = False,
    qk_norm: QKNorm = "none",
    layer_type: str | None = None,
) -> AttentionSpec:
    """Grouped-query attention with the customary field names and scale 1/sqrt(H)."""
    heads = raw.integer("num_attention_heads")
    kv_heads = raw.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise raw.bad("num_key_value_heads", f"({kv_heads}) must divide num_attention_heads ({heads})")
    head_dim = raw.integer("head_dim", raw.integer("hidden_size") // heads)
    rope = read_rope(raw, head_dim, layer_type=layer_type)
    return AttentionSpec(
        heads,
        kv_heads,
        head_dim,
        scale=head_dim**-0.5,
        rope=rope,
        window=window,
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        qk_norm=qk_norm,
    )


def read_mlp(raw: HubConfig, *, bias: bool = False) -> MlpSpec:
    """The dense gated feed-forward layer with the customary field names."""
    return MlpSpec(raw.integer("intermediate_size"), raw.activation(), bias)


def read_layer_types(raw: HubConfig, default: Callable[[int], str]) -> tuple[str, ...]:
    """Kind of attention per layer: `layer_types` where present, else `default(layer index)`.

    Raises:
        ModelLoadError: the list has another length than the model, or a kind that is not supported.
    """
    count = raw.integer("num_hidden_layers")
    kinds = raw.fields.get("layer_types") or [default(layer) for layer in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count:
        raise raw.bad("layer_types", f"must list {count} layers")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise raw.bad("layer_types", f"names {kind!r}, which is not supported")
    return tuple(kinds)


def read_model(raw: HubConfig, layers: tuple[LayerSpec, ...], *, tie_embeddings: bool = False) -> ModelConfig:
    """The fields that are not per layer, with the customary names; `tie_embeddings` is the family's default."""
    bos = raw.token_ids("bos_token_id")
    return ModelConfig(
        model_type=str(raw.fields["model_type"]),
        vocab_size=raw.integer("vocab_size"),
        hidden_size=raw.integer("hidden_size"),
        layers=layers,
        norm_eps=raw.number("rms_norm_eps", 1e-6),
        max_position_embeddings=raw.integer("max_position_embeddings"),
        tie_embeddings=raw.boolean("tie_word_embeddings", tie_embeddings),
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=raw.token_ids("eos_token_id"),
    )
