"""Programs of earlier starts, found again without tracing anything.

jax's own cache is asked with a lowered program, and tracing and lowering are most of a start that finds everything
there: 7.4 of 10.7 s of processor time for SmolLM2-135M. Here a program's name is a digest of all that it is made from:
the sources of programs, versions, devices, the model's configuration, the static sizes, the shapes of its arguments.
Files lie in `programs` within jax's directory; they are code, as jax's are, so the directory must be its user's own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax

from jaxserve.engine.batch import Layout
from jaxserve.engine.image_batch import ImageLayout
from jaxserve.engine.stored_programs import environment, pack, unpack
from jaxserve.models import GraphDef, LoadedModel
from jaxserve.native.instruction_sets import features

_log = logging.getLogger("jaxserve.programs")
_MOST_BYTES = 1 << 30
"""Of all files together; those that were used longest ago go first."""
_PARTS, _SUFFIXES = ("engine", "models", "native", "sampling"), (".py", ".h", ".cc")
"""Packages, and files of theirs, that programs are traced from."""
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAXSERVE_NATIVE")
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_use_shardy_partitioner",
    "jax_debug_nans",
)


@dataclass(frozen=True)
class KeptPrograms:
    """The programs of one model on its devices."""

    directory: Path
    devices: tuple[Any, ...]
    facts: str
    """What any program is made from: sources, versions, process, devices."""
    model: str
    """What those that compute the model are made from besides."""

    @classmethod
    def of(cls, model: LoadedModel) -> KeptPrograms | None:
        """Where the programs of a model are kept; None = nowhere: jax keeps none either, or processes share them."""
        settings = jax.config.values
        directory = settings["jax_compilation_cache_dir"] if settings["jax_enable_compilation_cache"] else None
        if not directory or "://" in directory or jax.process_count() > 1:
            return None
        devices = tuple(model.mesh.devices.flat)
        made_from = (
            _sources(),
            _process(),
            environment(devices[0]),
            [device.id for device in devices],
            model.mesh,
        )
        about_model = (model.config, model.dtype, model.layer_loop, model.backends)
        return cls(Path(directory) / "programs", devices, repr(made_from), repr(about_model))

    def path(self, function: Callable[..., Any], arguments: tuple[Any, ...], donate: tuple[int, ...]) -> Path | None:
        """The file of a program; None = it depends on what can't be named.

        Args:
            function: of `step`, its first arguments perhaps bound.
            arguments: shapes of the others.
            donate: which of them are given away.
        """
        called, bound = (function.func, function.args) if isinstance(function, partial) else (function, ())
        if not all(isinstance(each, Layout | ImageLayout | GraphDef | int | None) for each in bound):
            return None
        named = [each for each in bound if not isinstance(each, GraphDef)]  # graphs follow from the configuration
        model = self.model if len(named) < len(bound) else ""  # samplers are those of every model of their sizes
        about = (called.__module__, called.__qualname__, named, jax.tree.flatten(arguments), donate)
        return self.directory / _digest([self.facts, model, repr(about)])

    def find(self, path: Path) -> Callable[..., Any] | None:
        """The program of a file; None = there is none that can be read."""
        try:
            loaded = unpack(zlib.decompress(path.read_bytes()), self.devices)
            os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # noqa: BLE001 - unpickling what was damaged raises anything
            _log.warning("%s can't be read (%s); its program is compiled anew", path, error)
            return None
        return loaded

    def keep(self, path: Path, compiled: Any) -> None:
        """Writes a program; where that fails the next start compiles again."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(path, zlib.compress(pack(compiled), 1))
            _prune(self.directory.iterdir(), _MOST_BYTES)
        except Exception as error:  # noqa: BLE001 - full disks, no permission, devices that write no programs
            _complain(
                f"programs can't be kept in {self.directory} ({_reason(error)}); the next start compiles them again"
            )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


@cache
def _complain(sentence: str) -> None:
    """Once, not for each program."""
    _log.warning(sentence)


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, whoever else writes."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix="tmp", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(file.name)
            raise


def _prune(files: Iterable[Path], most: int) -> None:
    """Removes the files that were used longest ago, until the others are small enough together."""
    found = []
    for path in files:
        with suppress(FileNotFoundError):  # another process has written or removed it meanwhile
            found.append((path.stat(), path))
    total = 0
    for stat, path in sorted(found, key=lambda each: each[0].st_mtime, reverse=True):
        total += stat.st_size
        if total > most:
            path.unlink(missing_ok=True)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def _sources(package: Path = Path(__file__).parents[1]) -> str:
    """A digest of all that programs are traced from; who changes the API compiles nothing anew."""
    files = [package / "config.py", *(path for part in _PARTS for path in sorted((package / part).rglob("*.*")))]
    named = [(str(path.relative_to(package)), path.read_text()) for path in files if path.suffix in _SUFFIXES]
    return _digest(part for pair in named for part in pair)


def _process() -> tuple[Any, ...]:
    """What a compiler asks of process and machine: processors, threads, flags, settings."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    variables = [os.environ.get(name) for name in _VARIABLES]
    settings = [jax.config.values.get(name) for name in _SETTINGS]
    return sys.version, processors, sorted(features()), variables, settings
