"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# With libtpu installed jax would look for a TPU first; the tests' own devices are CPUs.
os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Other people's models, tokenizers and oracles; not part of the repository."""
    directory = Path(__file__).resolve().parents[2] / "shared"
    if not directory.is_dir():
        pytest.skip("the directory of other people's fixtures is not beside the checkout")
    return directory
