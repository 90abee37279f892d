"""Reading `config.json`: typed access with clear errors. `hub_layers` and `hub_rope` read the parts from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import Activation

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
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

    def optional_number(self, field: str) -> float | None:
        """A finite positive number, or None when absent or null."""
        return None if self.fields.get(field) is None else self.number(field)

    def boolean(self, field: str, default: bool) -> bool:
        """A boolean; null counts as absent."""
        value = self._get(field, default)
        if not isinstance(value, bool):
            raise self.bad(field, f"must be true or false, not {value!r}")
        return value

    def numbers(self, field: str, count: int) -> tuple[float, ...]:
        """A list of `count` positive numbers."""
        values = self._get(field, _REQUIRED)
        if not isinstance(values, list) or len(values) != count:
            raise self.bad(field, f"must list {count} numbers")
        return tuple(HubConfig({field: value}, self.path).number(field) for value in values)

    def only(self, field: str, *accepted: Any) -> None:
        """Refuse every value of a field but these (absent and null pass)."""
        value = self.fields.get(field)
        if value is not None and value not in accepted:
            raise self.bad(field, f"{value!r} is not supported (supported: {', '.join(map(repr, accepted))})")

    def activation(self, field: str = "hidden_act", default: str = "silu") -> Activation:
        """The feed-forward activation."""
        name = self._get(field, default)
        if name not in _ACTIVATIONS:
            raise self.bad(field, f"{name!r} is not supported (supported: {', '.join(_ACTIVATIONS)})")
        return _ACTIVATIONS[name]

    def integers(self, field: str) -> tuple[int, ...]:
        """One integer or a list of them (token ids, layers); empty when absent or null."""
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
