"""The engine's options as keyword arguments: known ones only, of their type, each with its help in the docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from jaxserve.errors import ModelLoadError
from jaxserve.options import Declared, EngineOptions, declared

_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS: dict[str, Declared] = {each.name: each for each in declared(EngineOptions)}
_NUMBERS: Mapping[Any, type] = {int: Integral, float: Real}


def engine_options(model_dir: Path, given: Mapping[str, Any]) -> EngineOptions:
    """The engine's options of what `LLM` was given.

    Raises:
        ModelLoadError: there is no such option, or its value is of another type or out of range.
    """
    values = {name: _value(name, value) for name, value in given.items() if value is not None}
    return EngineOptions(model_dir=model_dir, **values)


def documented(function: _F) -> _F:
    """Gives `function` the options as keyword arguments in its signature, and their help in its docstring."""
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, keyword, default=each.default) for name, each in _OPTIONS.items()]
    function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    lines = [f"    {name}: {each.option.help} Default: {each.default_words}." for name, each in _OPTIONS.items()]
    function.__doc__ = "\n".join(["Starts the model. Further keyword arguments:", "", *lines])
    return function


def _value(name: str, value: Any) -> Any:
    if name not in _OPTIONS:
        near = get_close_matches(name, _OPTIONS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelLoadError(f"LLM takes no option {name!r}{hint}")
    each = _OPTIONS[name]
    expected = _NUMBERS.get(each.kind, each.kind if each.kind in (bool, str) else object)
    wanted = (value,) if not each.repeatable else tuple(value) if isinstance(value, list | tuple) else (None,)
    if not all(isinstance(item, expected) and (each.kind is bool or not isinstance(item, bool)) for item in wanted):
        raise ModelLoadError(f"{name} must be of type {each.kind.__name__}, got {value!r}")
    return tuple(value) if each.repeatable else value
