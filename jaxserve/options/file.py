"""The configuration file: one TOML table of option names and values."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jaxserve.errors import ModelLoadError
from jaxserve.options.declaration import Declared

_TYPES: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
}


def read_config(path: Path, known: Collection[Declared]) -> dict[str, Any]:
    """The values of a file, by option.

    Args:
        path: of the file.
        known: every option of every command; one file may serve them all.

    Raises:
        ModelLoadError: the file can't be read, has an unknown key, or a value of another type than the option's.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"--config {path} can't be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ModelLoadError(f"--config {path} is not TOML: {error}") from None
    options = {each.name: each for each in known}
    return {name: _checked(path, name, value, options) for name, value in values.items()}


def _checked(path: Path, name: str, value: Any, options: dict[str, Declared]) -> Any:
    if name not in options:
        near = get_close_matches(name.replace("-", "_"), options, n=1)
        raise ModelLoadError(f"{path}: there is no option {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    wanted = options[name]
    words, types = _types(wanted)
    items = value if wanted.repeatable else [value]
    fits = isinstance(items, list) and all(isinstance(item, types) for item in items)
    if not fits or (isinstance(value, bool) and wanted.kind is not bool):
        raise ModelLoadError(f"{path}: {name} must be {words}, not {value!r}")
    return value if wanted.option.parse is None else str(value)


def _types(wanted: Declared) -> tuple[str, tuple[type, ...]]:
    """What a value must be, in words, and the types that it, or each of a list, may have."""
    if wanted.repeatable:
        return "a list of texts", (str,)
    if wanted.option.parse is not None:
        return "a text or a whole number", (str, int)
    return _TYPES.get(wanted.kind, ("a text", (str,)))
