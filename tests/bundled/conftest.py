"""Names the bundled model's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def story_dir() -> Path:
    """The bundled model in hub layout."""
    return ROOT / "jaxserve" / "_bundled" / "story"
