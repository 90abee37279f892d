"""Directories that stand for a model as long as the process lives."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path


def temporary_directory(name: str) -> Path:
    """A new directory of this name, removed when the process ends."""
    parent = tempfile.mkdtemp(prefix="jaxserve-")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    directory = Path(parent) / name
    directory.mkdir()
    return directory
