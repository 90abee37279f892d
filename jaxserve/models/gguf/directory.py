"""A model directory whose parameters are in GGUF files elsewhere: a file of it lists them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jaxserve.errors import ModelLoadError
from jaxserve.models.gguf.file import GgufFile, open_gguf

FILES = "weights.gguf-files"
"""The list: JSON, absolute paths in order."""


def has_gguf(model_dir: Path) -> bool:
    """Whether the parameters of this directory are in GGUF files."""
    return (model_dir / FILES).is_file()


def write_list(model_dir: Path, files: Sequence[Path]) -> None:
    """Let the directory's parameters be those of these files."""
    names = [str(path.resolve()) for path in files]
    (model_dir / FILES).write_text(json.dumps(names), encoding="utf-8")


def open_listed(model_dir: Path) -> GgufFile:
    """The files' headers.

    Raises:
        ModelLoadError: the list or a file can't be read.
    """
    try:
        names = json.loads((model_dir / FILES).read_text(encoding="utf-8"))
        paths = [Path(name) for name in names]
    except (OSError, ValueError, TypeError):
        raise ModelLoadError(f"{model_dir / FILES} is not a readable list of files.") from None
    return open_gguf(paths)
