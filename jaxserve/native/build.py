"""Compiles the kernels: at the first start, into the user's cache, or into a wheel.

A library is for one instruction set. Its name carries a hash of all that it was made from: sources, flags, compiler and
the FFI header of jaxlib; so a change of any of them compiles anew, and two versions live side by side.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import jax

from jaxserve.native.instruction_sets import InstructionSet

SOURCES = Path(__file__).parent / "src"
PREBUILT = Path(__file__).parent / "lib"
"""Where a wheel has its libraries, for the jaxlib versions with the FFI header it was built with."""
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w")
SANITIZE = ("-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g", "-O1")
"""Flags of a build that stops at the first access out of bounds."""
NO_COMPILER = "there is no C++ compiler; install c++, g++ or clang++ (Debian: apt install g++), or name one in CXX"
_TIMEOUT = 300.0
"""Seconds that a compiler may take for one file."""


class BuildError(Exception):
    """There is no library, and why: one sentence."""


def find_compiler() -> str | None:
    """The C++ compiler: `$CXX`, else c++, g++ or clang++ of the path."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def prebuilt(target: InstructionSet) -> Path | None:
    """The library that came with the package, if it did and fits jaxlib."""
    path = PREBUILT / _file_name(target, _digest([_headers_text()]))
    return path if path.exists() else None


def build(target: InstructionSet, directory: Path, extra: Sequence[str] = ()) -> Path:
    """The library for an instruction set in `directory`, compiled unless it is there.

    Args:
        target: what it may use.
        directory: made if need be; several processes may build there at once.
        extra: further flags, such as `SANITIZE`.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(NO_COMPILER)
    flags = [*FLAGS, *target.flags, *extra]
    texts = [_headers_text(), _version(compiler), " ".join(flags), *(path.read_text() for path in _sources("*"))]
    path = directory / _file_name(target, _digest(texts))
    if not path.exists():
        _compile(compiler, flags, path)
    return path


def build_prebuilt(target: InstructionSet) -> Path:
    """Compiles what `prebuilt` finds, for a wheel.

    Raises:
        BuildError: as `build`.
    """
    path = PREBUILT / _file_name(target, _digest([_headers_text()]))
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(NO_COMPILER)
    _compile(compiler, [*FLAGS, *target.flags], path)
    return path


def default_directory() -> Path:
    """`$XDG_CACHE_HOME/jaxserve/native`, or `~/.cache/jaxserve/native`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxserve" / "native"


def _compile(compiler: str, flags: Sequence[str], path: Path) -> None:
    """Every file at once, then the library under its name in one move."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch, ThreadPoolExecutor() as pool:
            sources = _sources("*.cc")
            objects = [Path(scratch) / f"{source.stem}.o" for source in sources]
            commands = [
                [compiler, *flags, "-isystem", jax.ffi.include_dir(), "-c", str(source), "-o", str(made)]
                for source, made in zip(sources, objects, strict=True)
            ]
            list(pool.map(_run, commands))
            library = Path(scratch) / path.name
            _run([compiler, *flags, "-shared", *map(str, objects), "-o", str(library)])
            library.replace(path)
    except OSError as error:
        raise BuildError(f"{path.parent} can't be written: {error.strerror or error}") from error


def _run(command: Sequence[str]) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name != "LD_PRELOAD"
    }  # a sanitizer is not for it
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT, env=environment)
    except subprocess.CalledProcessError as error:
        said = next((line for line in error.stderr.splitlines() if "error" in line), error.stderr[:200])
        raise BuildError(f"the C++ compiler {command[0]} failed: {said.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the C++ compiler {command[0]} took more than {_TIMEOUT:.0f} s") from error


def _sources(pattern: str) -> list[Path]:
    return sorted(SOURCES.glob(pattern))


@cache
def _headers_text() -> str:
    return (Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h").read_text()


@cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=_TIMEOUT).stdout


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _file_name(target: InstructionSet, digest: str) -> str:
    return f"jaxserve-{target.name}-{digest}.so"
