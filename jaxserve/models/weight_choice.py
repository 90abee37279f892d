"""How weights are held, by what the checkpoint has and what is asked for. No jax: options are checked here."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import LayerSpec, ModelConfig, MoeSpec, WeightFormat

WeightMode = Literal["keep", "dequantize"]
"""Quantised weights stay as they are stored and are dequantised in the product, or once, while they are loaded."""
Quantize = Literal["int8"]
"""Formats that weights are quantised to while they are loaded."""

SELECTING = ("attention.indexer.weights_proj",)
"""Projections that choose, as routers do, and stay unquantised like them."""
EXPERTS = tuple(f"mlp.experts.{name}_proj" for name in ("gate", "up", "down"))
_INT8 = WeightFormat("int8")


def choose_weights(config: ModelConfig, mode: WeightMode = "keep", quantize: Quantize | None = None) -> ModelConfig:
    """The configuration as its weights are to be held, from the one that `load_config` read.

    Args:
        config: says how the checkpoint's weights are stored.
        mode: what becomes of weights that are stored quantised.
        quantize: quantise all projections to this format; norms, routers, embeddings and the output projection stay.

    Raises:
        ModelLoadError: weights would be quantised that are quantised already.
    """
    if mode == "dequantize":
        config = _with_weights(config, None)
    if quantize is None:
        return config
    stored = next((layer.weights for layer in config.layers if layer.weights is not None), None)
    if stored is not None:
        raise ModelLoadError(
            f"--quantize {quantize} does not apply to weights that are stored quantised ({stored}): leave it away, or "
            "add --weights dequantize to quantise them anew."
        )
    return _with_weights(config, _INT8)


def _with_weights(config: ModelConfig, weights: WeightFormat | None) -> ModelConfig:
    left = () if weights is None else SELECTING
    layers = tuple(replace(layer, weights=weights, unquantised=left) for layer in config.layers)
    tower = None if config.vision is None else replace(config.vision, weights=None)  # small beside the layers
    return replace(config, layers=layers, vision=tower)


def suit_kernels(config: ModelConfig, blocks_in_experts: bool) -> ModelConfig:
    """The configuration as the kernels want its weights to be held.

    Args:
        config: of `choose_weights`.
        blocks_in_experts: kernels take FP8 with scales of blocks in experts alone. Elsewhere such a weight would be
            decoded in memory, at several times its size, in every step; beside experts it is small, so it becomes
            what its codes stand for while it is loaded. Models without experts keep it.
    """
    if not blocks_in_experts:
        return config
    sparse = any(isinstance(layer.mlp, MoeSpec) for layer in config.layers)
    return replace(config, layers=tuple(map(_blocks_in_experts, config.layers))) if sparse else config


def _blocks_in_experts(layer: LayerSpec) -> LayerSpec:
    form = layer.weights
    if form is None or form.code != "e4m3" or form.block is None:
        return layer
    own = dict(layer.formats)
    wanted = (*own, *(EXPERTS if isinstance(layer.mlp, MoeSpec) else ()))
    formats = {name: own.get(name, form) for name in wanted if name not in layer.unquantised}
    return replace(layer, weights=None, unquantised=(), formats=tuple(formats.items()))


def describe_weights(config: ModelConfig) -> str | None:
    """How quantised weights are held, in words; None where there are none."""
    return " and ".join(dict.fromkeys(map(str, held_formats(config)))) or None


def held_formats(config: ModelConfig) -> tuple[WeightFormat, ...]:
    """The formats of a model's quantised weights, the tower's aside."""
    layers = [form for layer in config.layers for form in (layer.weights, *(form for _, form in layer.formats))]
    found = dict.fromkeys([*layers, config.embed_weights, config.head_weights])
    return tuple(form for form in found if form is not None)
