"""Disks on their worst day: killed while it serves, a compilation cache of rubbish, or none, a log that is full."""

from __future__ import annotations

import httpx
import pytest
from test_hosts import QUICK, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BODY = {"model": "story", "prompt": "Once upon a time", "max_tokens": 24, "temperature": 1, "seed": 3}
ONTO_A_FULL_DISK = """
import os
for number in (1, 2):
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)
from jaxserve.cli import main
main()
"""


def answer(server):
    response = httpx.post(f"{server.url}/v1/completions", json=BODY, timeout=120)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["text"]


def test_killed_with_a_cache_of_rubbish_without_a_cache_and_with_a_full_log(serve, tmp_path):
    cache = tmp_path / "cache"
    first = serve(None, *SMALL, "--compilation-cache", str(cache), env=QUICK)
    expected = answer(first)
    body = BODY | {"max_tokens": 400, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{first.url}/v1/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
        first.process.kill()
    first.process.wait(20)

    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) > 3
    for index, path in enumerate(files):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if index % 2 else b"rubbish")
    second = serve(None, *SMALL, "--compilation-cache", str(cache), env=QUICK)
    assert answer(second) == expected
    assert second.stop() == 0

    nowhere = serve(None, *SMALL, "--compilation-cache", "/proc/nowhere", through=("-c", ONTO_A_FULL_DISK), env=QUICK)
    assert answer(nowhere) == expected
    assert answer(nowhere) == expected
    assert nowhere.stop() == 0
