"""Servers as processes of their own: started, waited for, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
SEQUENCES, CONTEXT = 16, 1024
_TIMEOUT = 900.0
"""Seconds that a server may take to be ready."""


@dataclass(frozen=True)
class Server:
    """A server that answers completions."""

    name: str
    base: str
    model: str
    seconds: float
    """From its start until it was ready."""
    process: int

    def resident(self) -> float:
        """MB of memory."""
        status = Path(f"/proc/{self.process}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


@contextmanager
def both(path: Path, llama_python: str, threads: int) -> Iterator[list[Server]]:
    """jaxserve's and llama.cpp's server on one file."""
    serve = [sys.executable, "-m", "jaxserve", "serve", str(path), "--host", "127.0.0.1", "--port", "{port}"]
    sizes = ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(SEQUENCES)]
    script = str(ROOT / "benchmarks" / "contenders" / "xllamacpp_server.py")
    llama = [llama_python, script, str(path), "{port}", str(threads), str(SEQUENCES), str(CONTEXT)]
    with ExitStack() as stack:
        yield [
            stack.enter_context(started("jaxserve", [*serve, *sizes], "/ready")),
            stack.enter_context(started("llama.cpp", llama, "/health")),
        ]


@contextmanager
def started(name: str, command: list[str], ready: str) -> Iterator[Server]:
    port = _free_port()
    begin = time.perf_counter()
    process = subprocess.Popen(
        [part.replace("{port}", str(port)) for part in command],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        base = f"http://127.0.0.1:{port}"
        _wait(process, base + ready, begin + _TIMEOUT, name)
        seconds = time.perf_counter() - begin
        model = httpx.get(base + "/v1/models", timeout=60).json()["data"][0]["id"]
        yield Server(name, base, model, seconds, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(process: subprocess.Popen[bytes], url: str, until: float, name: str) -> None:
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}")
        try:
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{name} was not ready in {_TIMEOUT:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
