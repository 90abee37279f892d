"""Other people's test suites against one live server: `JAXSERVE_JUDGE_URL`, or one that is started for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

START_SECONDS = 600


@pytest.fixture(scope="session")
def judged_url() -> Iterator[str]:
    """Base address of the server, without /v1."""
    given = os.environ.get("JAXSERVE_JUDGE_URL")
    if given:
        yield given.rstrip("/")
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jaxserve", "serve", "--port", str(port), "--max-num-seqs", "8"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError("the server is not ready")


@pytest.fixture(scope="session")
def judged_model(judged_url: str) -> str:
    name: str = httpx.get(f"{judged_url}/v1/models", timeout=30).json()["data"][0]["id"]
    return name
