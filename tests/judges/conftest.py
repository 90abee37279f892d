"""Other people's test suites against one live server: `JAXSERVE_JUDGE_URL`, or one that is started for them.

The latter serves `JAXSERVE_JUDGE_MODEL`, the bundled model if that isn't set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judged_server import serving


@pytest.fixture(scope="session")
def judged_url() -> Iterator[str]:
    """Base address of the server, without /v1."""
    given = os.environ.get("JAXSERVE_JUDGE_URL")
    if given:
        yield given.rstrip("/")
        return
    with serving(os.environ.get("JAXSERVE_JUDGE_MODEL", "story"), "--max-num-seqs", "8") as url:
        yield url


@pytest.fixture(scope="session")
def judged_model(judged_url: str) -> str:
    name: str = httpx.get(f"{judged_url}/v1/models", timeout=30).json()["data"][0]["id"]
    return name
