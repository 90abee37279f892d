"""Reads `quantization_config` of a `config.json`: how a checkpoint stores quantised weights, and which of them.

Methods: `fp8` (blocks as DeepSeek-V3's, or one scale a tensor), `mxfp4` (the experts of GPT-OSS), `compressed-tensors`
with `float-quantized` or `int-quantized` weights of 8 bits. Activations are not quantised, whatever the method says of
them: results are those of the dequantised weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import ModelConfig, WeightFormat
from jaxserve.models.family import VISION, Family, Names, Source
from jaxserve.models.hub import HubConfig
from jaxserve.models.weight_choice import SELECTING

FP8_TYPE, INT8_TYPE = "float8_e4m3fn", "int8"


@dataclass(frozen=True)
class StoredWeights:
    """How quantised weights are stored."""

    format: WeightFormat
    """As they are held when they are kept."""
    dtype: str
    """NumPy's name of the type of the stored codes."""
    rows: int | Literal["all"]
    """Neighbouring rows that share a stored scale."""
    scale: str
    """What the name of a weight's tensor of scales has in place of 'weight'."""
    left: tuple[str, ...] = ()
    """Regular expressions of the beginnings of modules that are not quantised."""
    experts_only: bool = False

    def covers(self, module: str) -> bool:
        """Whether the weight of a projection is quantised, by its module's name in the checkpoint."""
        if self.experts_only and ".experts." not in module:
            return False
        return not any(re.match(pattern, module) for pattern in self.left)


STRAYS = (r"\.(input_scale|output_scale|k_scale|v_scale|q_scale)$", r"\.activation_scale$")
"""Regular expressions of tensors that quantise activations or the cache, which stay unquantised here."""


def read_stored_weights(raw: HubConfig) -> StoredWeights | None:
    """How the checkpoint's projections are stored; None = not quantised.

    Raises:
        ModelLoadError: the method, or a setting of it, is not supported.
    """
    if raw.fields.get("quantization_config") is None:
        return None
    section = raw.section("quantization_config")
    method = section.fields.get("quant_method")
    if not isinstance(method, str) or method not in _METHODS:
        raise ModelLoadError(
            f"{raw.path}: quantization_config of method {method!r} is not supported "
            f"(supported: {', '.join(sorted(_METHODS))})."
        )
    return _METHODS[method](section)


def _read_fp8(raw: HubConfig) -> StoredWeights:
    """Block scales (DeepSeek-V3, `weight_scale_inv`), or one scale a tensor (`weight_scale`)."""
    raw.only("fmt", "e4m3", FP8_TYPE)
    raw.only("weight_per_tensor", False)
    left = _prefixes(raw, "modules_to_not_convert") + _prefixes(raw, "ignored_layers")
    if raw.fields.get("weight_block_size") is None:
        return StoredWeights(WeightFormat("e4m3"), FP8_TYPE, "all", "weight_scale", left)
    rows, inputs = _block(raw, "weight_block_size")
    return StoredWeights(WeightFormat("e4m3", inputs), FP8_TYPE, rows, "weight_scale_inv", left)


def _read_mxfp4(raw: HubConfig) -> StoredWeights:
    """OCP MX: blocks of 32, scales that are powers of two (GPT-OSS)."""
    left = _prefixes(raw, "modules_to_not_convert")
    return StoredWeights(WeightFormat("e2m1", 32, "e8m0"), "uint8", 1, "", left, experts_only=True)


def _read_compressed(raw: HubConfig) -> StoredWeights:
    """compressed-tensors, one group of all linear layers (docs: github.com/vllm-project/compressed-tensors)."""
    kinds = {"float-quantized": ("float", "e4m3", FP8_TYPE), "int-quantized": ("int", "int8", INT8_TYPE)}
    raw.only("format", *kinds)
    raw.only("quantization_status", "compressed")
    raw.section("sparsity_config").only("format", "dense")
    groups = raw.section("config_groups")
    if len(groups.fields) != 1:
        raise raw.bad("config_groups", f"must be one group, not {len(groups.fields)}")
    group = groups.section(next(iter(groups.fields)))
    group.only("targets", ["Linear"])
    group.only("format", None, raw.fields.get("format"))
    weights = group.section("weights")
    kind = raw.fields.get("format") or ("int-quantized" if weights.fields.get("type") == "int" else "float-quantized")
    type_name, code, dtype = kinds[kind]
    weights.only("type", type_name)
    weights.only("num_bits", 8)
    weights.only("symmetric", True)
    weights.only("dynamic", False)
    weights.only("strategy", "tensor", "channel", "block")
    stored = StoredWeights(WeightFormat(code), dtype, 1, "weight_scale", _ignored(raw))  # type: ignore[arg-type]
    if weights.fields.get("strategy") == "block":
        rows, inputs = _block(weights, "block_structure")
        return replace(stored, format=replace(stored.format, block=inputs), rows=rows)
    return stored if weights.fields.get("strategy") == "channel" else replace(stored, rows="all")


_METHODS: dict[str, Callable[[HubConfig], StoredWeights]] = {
    "compressed-tensors": _read_compressed,
    "fp8": _read_fp8,
    "mxfp4": _read_mxfp4,
}


def _block(raw: HubConfig, field: str) -> tuple[int, int]:
    """Rows and inputs of a block."""
    size = raw.integers(field)
    if len(size) != 2 or min(size) < 1:
        raise raw.bad(field, f"must be two positive integers, not {raw.fields.get(field)!r}")
    return size[0], size[1]


def _strings(raw: HubConfig, field: str) -> list[str]:
    values = raw.fields.get(field) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise raw.bad(field, "must list strings")
    return values


def _compiled(raw: HubConfig, field: str, pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error:
        raise raw.bad(field, f"holds {pattern!r}, which is no regular expression") from None
    return pattern


def _prefixes(raw: HubConfig, field: str) -> tuple[str, ...]:
    """Names are whole parts of a module's name, at its beginning or its end; '*' and '.' stand for anything."""
    return tuple(
        _compiled(raw, field, rf"(?:.*\.)?(?:{name.replace('*', '.*').replace('..*', '.*')})(?:\.|$)")
        for name in _strings(raw, field)
    )


def _ignored(raw: HubConfig) -> tuple[str, ...]:
    """Whole names, and regular expressions behind 're:' that match from the beginning."""
    return tuple(
        _compiled(raw, "ignore", name[3:]) if name.startswith("re:") else rf"{re.escape(name)}$"
        for name in _strings(raw, "ignore")
    )


def with_stored_weights(config: ModelConfig, stored: StoredWeights | None, family: Family) -> ModelConfig:
    """The configuration with its layers' weights held as they are stored.

    Raises:
        ModelLoadError: the family's experts are not known to be stored like this.
    """
    if stored is None:
        return config
    if stored.experts_only and not family.packed:
        raise ModelLoadError(f"quantization_config of method 'mxfp4' is not supported for {config.model_type}.")
    layers = tuple(
        replace(spec, weights=stored.format, unquantised=_left(stored, family, layer))
        for layer, spec in enumerate(config.layers)
    )
    vision = config.vision
    if vision is not None and not stored.experts_only:
        vision = replace(vision, weights=stored.format, unquantised=_left(stored, family, 0, tower=True))
    return replace(config, layers=layers, vision=vision)


def _left(stored: StoredWeights, family: Family, layer: int, *, tower: bool = False) -> tuple[str, ...]:
    """The layer's projections that are not quantised, or the tower's; other parameters with a weight may be among
    them. A tower's blocks are all stored as its first one is."""
    modules = {
        ours.removesuffix(".weight"): source_name(family.names, ours).format(layer=layer, expert=0)
        for ours in family.names
        if ours.endswith(".weight")
        and ours.startswith(VISION) == tower
        and (tower or "{layer}" in source_name(family.names, ours))
    }

    def covered(module: str) -> bool:
        return all(stored.covers(name) for name in family.aliases(module))

    return tuple(
        sorted(
            path for path, theirs in modules.items() if path in SELECTING or not covered(theirs.removesuffix(".weight"))
        )
    )


def source_name(names: Names, leaf: str) -> str:
    """The tensor that a parameter is, or is part of."""
    source = names[leaf]
    return source.name if isinstance(source, Source) else source
