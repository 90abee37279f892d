"""Runs a model by hand: one sequence in a paged cache, step by step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import jax.numpy as jnp
import pytest

from jaxserve import models

sys.path.insert(0, str(Path(__file__).parent))  # for tests that import their neighbours

from model_session import Session


@pytest.fixture(scope="session")
def make_session() -> Callable[..., Session]:
    return Session


@pytest.fixture(scope="session")
def model_fixtures() -> Path:
    return Path(__file__).resolve().parents[1] / "fixtures" / "models"


@pytest.fixture(scope="session")
def served(model_fixtures: Path) -> Callable[[str], Session]:
    """A fixture's session by name, layers unrolled; made and compiled once, because compiling costs seconds."""
    return lru_cache(maxsize=None)(lambda name: Session(models.load_model(model_fixtures / name)))


@pytest.fixture
def poison() -> Callable[[Session], None]:
    """Fill the whole cache with NaN, as stale pages may hold anything."""

    def fill(session: Session) -> None:
        session.cache = {name: jnp.full_like(array, jnp.nan) for name, array in session.cache.items()}

    return fill
