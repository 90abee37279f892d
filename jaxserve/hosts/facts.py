"""What hosts compare before they start together, and the sizes on which they agree."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from jaxserve import __version__
from jaxserve.config import EngineConfig
from jaxserve.errors import ModelLoadError
from jaxserve.models.config_file import load_config
from jaxserve.options import EngineOptions, declared

_MEMORY = ("num_pages", "max_model_len")
"""Sizes that each host's memory decides: the smallest stand for all."""
_OWN = ("model_dir", "max_waiting")
"""What hosts may have of their own: no program depends on it."""


def facts(options: EngineOptions, hosts: int) -> dict[str, Any]:
    """Versions, options and the model's configuration, by the names that people know."""
    chosen = {each.flag: getattr(options, each.name) for each in declared(EngineOptions) if each.name not in _OWN}
    versions = {"jaxserve": __version__, "jax": version("jax"), "jaxlib": version("jaxlib")}
    told = {**versions, "--num-hosts": hosts, **chosen, "the model's config.json": _fingerprint(options)}
    plain: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return plain


def _fingerprint(options: EngineOptions) -> str:
    return hashlib.sha256(repr(load_config(options.model_dir)).encode()).hexdigest()[:16]


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any], host: int) -> str | None:
    """The first difference, in a sentence."""
    for name in (*ours, *theirs):
        here, there = ours.get(name, "unknown"), theirs.get(name, "unknown")
        if here != there:
            return f"host {host} differs in {name}: {there} there, {here} on host 0"
    return None


def from_fields(config: EngineConfig, fields: Mapping[str, Any]) -> EngineConfig:
    """This host's configuration with the sizes of another one that memory decides.

    Raises:
        ModelLoadError: they differ in anything else.
    """
    ours = config.plain()
    for name, value in fields.items():
        if name not in (*_OWN, *_MEMORY) and ours.get(name) != value:
            raise ModelLoadError(f"hosts differ in {name}: {value} on one, {ours.get(name)} on another")
    return dataclasses.replace(config, **{name: fields[name] for name in _MEMORY})


def smallest(config: EngineConfig, others: Mapping[int, EngineConfig]) -> EngineConfig:
    """What fits each of them."""
    every = (config, *others.values())
    least = {name: min(getattr(each, name) for each in every) for name in _MEMORY}
    return dataclasses.replace(config, **least)
