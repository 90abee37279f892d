"""The kernels of this process: found or built once, loaded, and made known to XLA."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax

from jaxserve.native.build import BuildError, build, default_directory, prebuilt
from jaxserve.native.instruction_sets import INSTRUCTION_SETS, InstructionSet, available

TARGETS = ("attention", "matmul_blocks", "matmul_float", "matmul_scaled", "zeros")
"""Functions of the library, without their prefix."""
VARIABLE = "JAXSERVE_NATIVE"
"""Environment variable: the name of an instruction set to use in place of the best, or "off"."""


@dataclass(frozen=True)
class Library:
    """A loaded library."""

    instruction_set: str

    def target(self, function: str) -> str:
        """The name that XLA knows a function by."""
        return f"jaxserve_{function}_{self.instruction_set}"


@cache
def load() -> Library:
    """The kernels for the best instruction set of this machine.

    Raises:
        BuildError: there are none, and why.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "off":
        raise BuildError(f"{VARIABLE}=off")
    targets = [one for one in available() if wanted in ("", one.name)]
    if not targets:
        names = ", ".join(one.name for one in INSTRUCTION_SETS)
        raise BuildError(f"{VARIABLE}={wanted} is none of those that this machine has (of {names})")
    return open_library(prebuilt(targets[0]) or build(targets[0], default_directory()), targets[0])


@cache
def open_library(path: Path, target: InstructionSet) -> Library:
    """Loads a file and registers its functions.

    Raises:
        BuildError: it can't be loaded.
    """
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} can't be loaded: {error}") from error
    library = Library(target.name)
    for function in TARGETS:
        capsule = jax.ffi.pycapsule(getattr(loaded, f"jaxserve_{function}"))
        jax.ffi.register_ffi_target(library.target(function), capsule, platform="cpu")
    return library


def unavailable() -> str | None:
    """Why there are no kernels here; None = there are, and they are loaded."""
    try:
        load()
    except BuildError as error:
        return str(error)
    return None
