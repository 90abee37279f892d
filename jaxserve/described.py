"""What is known of a model before its devices are: its small files, and the options that they bear out.

No jax: whoever mistypes an option shall not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxserve.engine.machine import check_machine, told_machine
from jaxserve.engine.sizing import check_context, check_sizes
from jaxserve.images.processor import ImageServices, read_processor
from jaxserve.images.types import ImageMarkup, ImageShape
from jaxserve.models.config import ModelConfig
from jaxserve.models.config_file import load_config
from jaxserve.models.weight_choice import choose_weights
from jaxserve.options import EngineOptions
from jaxserve.text.tokenizers.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Described:
    """A model's small files."""

    options: EngineOptions
    model_config: ModelConfig
    """Its weights as they are stored."""
    tokenizer: Tokenizer
    images: ImageServices | None
    """None = the model knows text only."""


def describe(options: EngineOptions, hosts: int = 1) -> Described:
    """Reads the model's small files and checks the options against them.

    Args:
        options: what was chosen.
        hosts: machines like this one that serve the model together.

    Raises:
        ModelLoadError: the model can't be served so; one clear sentence.
    """
    config = check_model(options)
    if (machine := told_machine(hosts)) is not None:
        check_sizes(options, config.max_position_embeddings, machine.platform)
        check_machine(options, machine)
    return Described(options, config, load_tokenizer(options.model_dir), _image_services(options.model_dir, config))


def check_model(options: EngineOptions) -> ModelConfig:
    """The model's configuration, once the options are known to agree with it.

    Raises:
        ModelLoadError: see `describe`.
    """
    config = load_config(options.model_dir)
    check_context(options, config.max_position_embeddings)
    choose_weights(config, options.weights, options.quantize)
    return config


def _image_services(model_dir: Path, config: ModelConfig) -> ImageServices | None:
    vision = config.vision
    if vision is None:
        return None
    side = None if vision.side is None else vision.side * vision.patch
    shape = ImageShape(vision.style, vision.patch, vision.merge, side, vision.extra_tokens)
    markup = ImageMarkup(vision.image_token, vision.before, vision.after, vision.around, vision.template_token)
    return ImageServices(read_processor(model_dir, shape), markup)
