"""The sampling defaults that a model ships in `generation_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxserve.sampling.params import KNOBS
from jaxserve.text.tokenizers.model_files import read_json_object

DEFAULTED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Knobs whose defaults models ship, under the names that requests use."""


def sampling_defaults(model_dir: Path) -> Mapping[str, float]:
    """Values for the knobs that a request leaves open, by name; empty where the model ships none.

    A value out of the range that requests may use is brought to its nearest end (`top_k: -1` and `top_k: 1000` are
    seen); what is no number is left out.

    Raises:
        ModelLoadError: the file is not JSON.
    """
    shipped = read_json_object(model_dir / "generation_config.json")
    found = {name: shipped.get(name) for name in DEFAULTED}
    return {
        name: min(max(value, type(value)(KNOBS[name].low)), type(value)(KNOBS[name].high))
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
