"""Compiled programs in files, written on one machine and loaded by another: what `compile` and `--programs` share.

A directory holds `programs.json`, which says what the programs were compiled for, and one file for each program. An
executable fits one version of jax and of the device's compiler, one kind of devices and one set of static sizes: the
engine then takes its sizes from there, and whatever else differs is refused by name.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from jaxserve.config import EngineConfig
from jaxserve.errors import ModelLoadError
from jaxserve.models import ModelConfig

_MANIFEST = "programs.json"
_NOT_STORED = ("model_dir", "max_waiting", "max_num_mixed_tokens", "prefix_caching", "images")
"""Fields of the configuration that no program depends on, or that are compared instead."""


def environment(device: Any) -> dict[str, str]:
    """What executables depend on besides the model: versions, and the kind of device."""
    compilers = {"tpu": ("libtpu",), "gpu": ("jax-cuda13-plugin", "jax-cuda12-plugin")}.get(device.platform, ())
    versions = {name: found for name in ("jax", "jaxlib", *compilers) if (found := _version(name)) is not None}
    return {**versions, "platform": device.platform, "device": device.device_kind}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(
    directory: Path, programs: Iterable[tuple[str, Any]], config: EngineConfig, model: ModelConfig, device: Any
) -> None:
    """Writes compiled programs under their names, and the manifest last.

    Args:
        directory: missing or empty.
        programs: (name, what `jax.stages.Lowered.compile` returned).
        config: sizes that they were compiled for.
        model: the model's.
        device: one of the devices, present or not.

    Raises:
        ModelLoadError: the directory holds something.
    """
    if directory.exists() and any(directory.iterdir()):
        raise ModelLoadError(f"{directory} is not empty")
    directory.mkdir(parents=True, exist_ok=True)
    for name, compiled in programs:
        (directory / name).write_bytes(pack(compiled))
    manifest = {"environment": environment(device), "engine": _sizes(config), "model": _fingerprint(model)}
    manifest["images"] = repr(config.images)
    (directory / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def pack(compiled: Any) -> bytes:
    """A compiled program; on CPUs one that did not come from jax's cache (`compilations.afresh`)."""
    executable, *trees = serialize_executable.serialize(compiled)
    # A tree definition can't be pickled, a tree of numbers can.
    templates = [jax.tree.unflatten(tree, range(tree.num_leaves)) for tree in trees]
    return pickle.dumps((executable, templates))


def unpack(packed: bytes, devices: Iterable[Any]) -> Callable[..., Any]:
    """A program of `pack`, ready to run on the devices. It is code: whoever writes the bytes runs it here."""
    executable, templates = pickle.loads(packed)
    inputs, outputs = [jax.tree.structure(template) for template in templates]
    loaded: Callable[..., Any] = serialize_executable.deserialize_and_load(
        executable, inputs, outputs, execution_devices=tuple(devices)
    )
    return loaded


def _sizes(config: EngineConfig) -> dict[str, Any]:
    return {name: value for name, value in config.plain().items() if name not in _NOT_STORED}


def _fingerprint(model: ModelConfig) -> str:
    return repr(model)


@dataclasses.dataclass(frozen=True)
class StoredPrograms:
    """A directory of programs that fit this machine and model."""

    directory: Path
    engine: dict[str, Any]
    images: str

    @classmethod
    def open(cls, directory: Path, model: ModelConfig, device: Any) -> StoredPrograms:
        """Reads the manifest and compares it.

        Raises:
            ModelLoadError: there is none, or what the programs were compiled for is not what is here.
        """
        try:
            manifest = json.loads((directory / _MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"--programs {directory}: no readable {_MANIFEST} ({error})") from None
        here = environment(device)
        for name, stored in manifest["environment"].items():
            if here.get(name) != stored:
                found = here.get(name, "none")
                raise ModelLoadError(f"--programs {directory} was compiled for {name} {stored}, here is {found}")
        if manifest["model"] != _fingerprint(model):
            raise ModelLoadError(f"--programs {directory} was compiled for another model, or other --weights")
        return cls(directory, manifest["engine"], manifest["images"])

    def sizes(self, config: EngineConfig, given: Iterable[str]) -> EngineConfig:
        """The configuration with the sizes that the programs have.

        Args:
            config: what would stand without them.
            given: fields that were asked for; they must agree.

        Raises:
            ModelLoadError: names the flag that does not.
        """
        stored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in self.engine.items()
        }
        for name in given:
            if name in stored and getattr(config, name) != stored[name]:
                flag = "--" + name.replace("_", "-")
                raise ModelLoadError(
                    f"--programs {self.directory} was compiled with {flag} {stored[name]}: leave it out"
                )
        if repr(config.images) != self.images:
            raise ModelLoadError(f"--programs {self.directory} was compiled for images of other sizes: {self.images}")
        return dataclasses.replace(config, **stored)

    def load(self, name: str, devices: Iterable[Any]) -> Callable[..., Any]:
        """A program by its name, ready to run.

        Raises:
            ModelLoadError: the file is missing, or the device refuses it.
        """
        try:
            return unpack((self.directory / name).read_bytes(), devices)
        except Exception as error:
            raise ModelLoadError(f"--programs {self.directory}: {name} can't be loaded: {error}") from error
