"""Reading the rotary embedding from `config.json`, in the hub's style and that of transformers v5.

The hub: `rope_theta`, `rope_scaling`, `partial_rotary_factor`, `rotary_dim`. transformers v5: all of it in
`rope_parameters`, which may hold one object per kind of layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from jaxserve.models.config import RopeSpec
from jaxserve.models.hub import HubConfig


def read_rope(raw: HubConfig, head_dim: int, *, layer_type: str | None = None, interleaved: bool = False) -> RopeSpec:
    """The rotary embedding of a layer; `layer_type` picks the entry where there is one per kind of layer.

    Raises:
        ModelLoadError: a scaling kind that is not supported, or a malformed field.
    """
    source, kind = _source(raw, layer_type)
    rotary = source.optional_integer("rotary_dim") or int(head_dim * source.number("partial_rotary_factor", 1.0))
    if rotary % 2 or rotary > head_dim:
        raise raw.bad("rotary_dim", f"must be even and at most head_dim ({head_dim}), not {rotary}")
    plain = RopeSpec(rotary, source.number("rope_theta", 10000.0), interleaved=interleaved)
    plain = _with_axes(source, plain)
    if kind == "default" or (kind == "mrope" and plain.sections):
        return plain
    if kind not in _KINDS:
        known = ", ".join(("default", *_KINDS))
        raise raw.bad("rope_scaling", f"of type {kind!r} is not supported (supported: {known})")
    return _KINDS[kind](source, plain)


def _with_axes(source: HubConfig, plain: RopeSpec) -> RopeSpec:
    """Where `mrope_section` says how many pairs rotate with each position axis."""
    sections = source.integers("mrope_section")
    if not sections:
        return plain
    if len(sections) != 3 or min(sections) < 0 or sum(sections) != plain.rotary_dim // 2:
        raise source.bad("mrope_section", f"must share out {plain.rotary_dim // 2} pairs among three axes")
    return replace(plain, sections=sections, sections_interleaved=source.boolean("mrope_interleaved", False))


def read_yarn_sharpening(raw: HubConfig) -> float:
    """Factor of DeepSeek on queries and on keys where YaRN stretches the context: set by `mscale_all_dim`, else 1."""
    source, kind = _source(raw, None)
    if kind != "yarn" or not source.fields.get("mscale_all_dim"):
        return 1.0
    return yarn_scale(source.number("factor"), source.number("mscale_all_dim"))


def _source(raw: HubConfig, layer_type: str | None) -> tuple[HubConfig, str]:
    """The fields about rotation, wherever they stand, over all others; and the kind of scaling."""
    modern = raw.section("rope_parameters")
    if layer_type is not None and layer_type in modern.fields:
        modern = modern.section(layer_type)
    scaling = raw.section("rope_scaling")
    source = HubConfig({**raw.fields, **scaling.fields, **modern.fields}, raw.path)
    kind = source.fields.get("rope_type") or source.fields.get("type")
    if not kind and scaling.fields:
        raise raw.bad("rope_scaling", "has no rope_type: how the context is stretched is not known")
    return source, kind or "default"


def stretched_context(rope: RopeSpec, stated: int) -> int:
    """Positions that a rotation is made for, of a model that states `max_position_embeddings`.

    yarn, linear and dynamic stretch the original context; where longrope and llama3 are used, the stated one is
    stretched already.
    """
    if rope.kind in ("yarn", "dynamic"):
        return max(stated, round(rope.original_context * rope.factor))
    return round(stated * rope.factor) if rope.kind == "linear" else stated


def yarn_scale(factor: float, weight: float = 1.0) -> float:
    """How much YaRN sharpens attention for a context stretched by `factor` (0.1 ln(factor) + 1 in the paper)."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1.0 else 1.0


def _linear(source: HubConfig, plain: RopeSpec) -> RopeSpec:
    return replace(plain, kind="linear", factor=source.number("factor"))


def _llama3(source: HubConfig, plain: RopeSpec) -> RopeSpec:
    return replace(
        plain,
        kind="llama3",
        factor=source.number("factor"),
        low_freq_factor=source.number("low_freq_factor"),
        high_freq_factor=source.number("high_freq_factor"),
        original_context=source.integer("original_max_position_embeddings"),
    )


def _dynamic(source: HubConfig, plain: RopeSpec) -> RopeSpec:
    context = source.integer("max_position_embeddings")
    return replace(plain, kind="dynamic", factor=source.number("factor"), original_context=context)


def _yarn(source: HubConfig, plain: RopeSpec) -> RopeSpec:
    context = source.integer("max_position_embeddings")
    original = source.integer("original_max_position_embeddings", context)
    factor = source.number("factor", context / original)
    both = source.fields.get("mscale") and source.fields.get("mscale_all_dim")
    attention = yarn_scale(factor)
    if both:
        attention = yarn_scale(factor, source.number("mscale")) / yarn_scale(factor, source.number("mscale_all_dim"))
    return replace(
        plain,
        kind="yarn",
        factor=factor,
        original_context=original,
        attention_factor=source.number("attention_factor", attention),
        beta_fast=source.number("beta_fast", 32.0),
        beta_slow=source.number("beta_slow", 1.0),
        truncate=source.boolean("truncate", True),
    )


def _longrope(source: HubConfig, plain: RopeSpec) -> RopeSpec:
    context = source.integer("max_position_embeddings")
    original = source.integer("original_max_position_embeddings", context)
    factor = source.number("factor", context / original)
    attention = math.sqrt(1.0 + math.log(factor) / math.log(original)) if factor > 1.0 else 1.0
    short, long = (source.numbers(field, plain.rotary_dim // 2) for field in ("short_factor", "long_factor"))
    return replace(
        plain,
        kind="longrope",
        original_context=original,
        attention_factor=source.number("attention_factor", attention),
        short_factors=short,
        long_factors=long,
    )


_KINDS: dict[str, Callable[[HubConfig, RopeSpec], RopeSpec]] = {
    "linear": _linear,
    "llama3": _llama3,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,  # the name that the first Phi-3 checkpoints gave it
}
