"""The real server as a process, over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from benchmarks.soak.server import Watched
from jaxserve import LLM
from jaxserve.api.app import create_app
from jaxserve.api.connection import guarded
from jaxserve.options import Limits

# Tests are imported by path, so the modules they share must be found by name.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "images"))

START_SECONDS = 600


@dataclass
class LiveServer(Watched):
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, seconds: float = 40) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


Serve = Callable[..., LiveServer]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory) -> Path:
    """XDG_CACHE_HOME of every process that is started: what one compiles, all have."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla"


@pytest.fixture(scope="session")
def serve(tmp_path_factory, cache_home) -> Iterator[Serve]:
    """Starts `jaxserve serve MODEL FLAGS...` and waits until it is ready; `through` another script than jaxserve's."""
    running: list[LiveServer] = []

    def start(
        model: Path | None,
        *flags: str,
        env: dict[str, str] | None = None,
        through: tuple[str, ...] = ("-m", "jaxserve"),
    ) -> LiveServer:
        port = free_port()
        log = tmp_path_factory.mktemp("server") / "log.txt"
        command = [sys.executable, *through, "serve", str(model or "story"), "--port", str(port)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache_home), **(env or {})}
        with log.open("wb") as output:
            process = subprocess.Popen([*command, *flags], stdout=output, stderr=output, env=environment)
        server = LiveServer(f"http://127.0.0.1:{port}", process.pid, process, log)
        running.append(server)
        _wait_ready(server)
        return server

    yield start
    for server in running:
        server.stop()


def _wait_ready(server: LiveServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if httpx.get(f"{server.url}/ready", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready in {START_SECONDS} s: {server.log.read_text()}")


SEEING = Path(__file__).parents[1] / "fixtures" / "models" / "qwen3_vl"
"""A tiny model that reads images."""


@pytest.fixture(scope="session")
def seeing() -> Iterator[LLM]:
    """It, in a notebook."""
    sizes: dict[str, Any] = {"max_num_seqs": 4, "max_model_len": 160, "token_buckets": (32,), "kv_memory": 4 << 20}
    with LLM(SEEING, progress=False, dtype="float32", max_image_tokens=64, **sizes) as made:
        yield made


@pytest.fixture(scope="session")
def seeing_server(seeing: LLM) -> Iterator[str]:
    """URL of a server around the same engine, in a thread; it fetches images."""
    chats, limits = seeing._chats, Limits()
    settings = replace(chats._settings, allow_image_urls=True)
    app = create_app(seeing._started.engine, chats._text, settings)
    server = uvicorn.Server(uvicorn.Config(app, http=guarded(limits), log_level="warning", access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def bundled_server(serve: Serve) -> LiveServer:
    """The bundled model, with few pages so that requests compete for them."""
    return serve(None, "--max-num-seqs", "16", "--max-model-len", "512", "--max-num-batched-tokens", "64")


@pytest.fixture(scope="session")
def stories_server(serve: Serve, shared_dir: Path) -> LiveServer:
    """A real trained model of 260,000 parameters, float32."""
    model = shared_dir / "real" / "models" / "stories260K"
    return serve(model, "--dtype", "float32", "--max-num-seqs", "8", "--max-num-batched-tokens", "64")
