"""Profiles of the running server, where the operator allows them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import jax
import jax.numpy as jnp
import pytest

from jaxserve.errors import Overloaded
from jaxserve.profiling import Profiler


def test_nobody_may_ask_by_default(make_live: Any) -> None:
    assert httpx.post(f"{make_live().url}/debug/profile").status_code == 404


def test_a_profile_is_written_while_requests_run(make_live: Any, tmp_path: Path) -> None:
    server = make_live(profile=Profiler(tmp_path).record)
    jax.jit(lambda x: x + 1)(jnp.ones(3)).block_until_ready()
    answer = httpx.post(f"{server.url}/debug/profile?seconds=0.3", timeout=60)
    assert answer.status_code == 200
    folder = Path(answer.json()["directory"])
    assert folder.parent == tmp_path
    assert list(folder.rglob("*.xplane.pb"))


@pytest.mark.parametrize("seconds", ["0", "-1", "61", "x", "nan", ""])
def test_wrong_seconds_are_named(make_live: Any, seconds: str) -> None:
    server = make_live(profile=lambda _: Path())
    answer = httpx.post(f"{server.url}/debug/profile?seconds={seconds}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "seconds"]


def test_keys_guard_it(make_live: Any) -> None:
    server = make_live(profile=lambda _: Path(), api_keys=("secret",))
    assert httpx.post(f"{server.url}/debug/profile").status_code == 401


def test_one_at_a_time(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path)
    first = threading.Thread(target=profiler.record, args=(1.5,))
    first.start()
    while not profiler._lock.locked():
        pass
    with pytest.raises(Overloaded, match="already"):
        profiler.record(0.1)
    first.join()
