"""From a model directory's `config.json` to a `ModelConfig`. No jax: options are checked against it first."""

from __future__ import annotations

from pathlib import Path

from jaxserve.models.config import ModelConfig
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_quantization import read_stored_weights, with_stored_weights
from jaxserve.models.registry import find_family, model_type_of


def load_config(model_dir: Path) -> ModelConfig:
    """Read `config.json`, in the hub's style or that of transformers v5; weights are held as they are stored.

    Raises:
        ModelLoadError: missing or malformed file, unknown family, or a setting that is not supported.
    """
    raw = HubConfig.read(Path(model_dir))
    model_type = model_type_of(raw)
    family = find_family(model_type)
    config = family.read(HubConfig({**raw.fields, "model_type": model_type}, raw.path))
    return with_stored_weights(config, read_stored_weights(raw), family)
