"""Makes the training scripts importable and names the bundled model's directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def story_dir() -> Path:
    """The bundled model in hub layout."""
    return ROOT / "jaxserve" / "_bundled" / "story"
