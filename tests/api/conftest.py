"""Fixtures of the HTTP room: apps around a fake engine, in this process and behind a real server."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

# Tests are imported by path, so the modules they share must be found by name.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "images"))

from api_client import Api, Recorder
from api_fakes import FakeEngine, build
from file_server import hidden, shown  # noqa: F401 - fixtures

from jaxserve.api.connection import guarded
from jaxserve.options import Limits


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proves(*fields): the test fails when one of these request fields has no effect")


@pytest.fixture
def make_api() -> Iterator[Callable[..., Api]]:
    """Makes a client of an app around a fake engine; options of the engine under `engine`, others of the app."""
    engines = []

    def make(engine: FakeEngine | None = None, **options: Any) -> Api:
        engines.append(engine or FakeEngine())
        return Api(build(engines[-1], **options), engines[-1])

    yield make
    for engine in engines:
        engine.gate.set()
        engine.close()


@pytest.fixture(scope="session")
def shared_api() -> Iterator[Api]:
    """One app with every default, for the many tests that change nothing of it."""
    engine = FakeEngine()
    client = Api(build(engine), engine)
    with client.http:
        yield client
    engine.close()


@pytest.fixture
def api(shared_api: Api) -> Api:
    shared_api.engine.requests.clear()
    shared_api.engine.aborted.clear()
    return shared_api


class LiveServer:
    """uvicorn on a free port of 127.0.0.1, in a thread."""

    def __init__(self, app: Any, engine: FakeEngine, limits: Limits | None = None) -> None:
        self.engine = engine
        self._recorder = Recorder(app)
        limits = limits or Limits()
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._recorder,
                http=guarded(limits),
                timeout_keep_alive=limits.idle_timeout,
                log_level="warning",
                access_log=False,
                lifespan="on",
            )
        )
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.listening]}, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.listening.close()
        self._recorder.check_all()


@pytest.fixture
def make_live() -> Iterator[Callable[..., LiveServer]]:
    """Starts a real server around a fake engine."""
    servers = []

    def make(engine: FakeEngine | None = None, **options: Any) -> LiveServer:
        engine = engine or FakeEngine()
        servers.append(LiveServer(build(engine, **options), engine, options.get("limits")))
        return servers[-1]

    yield make
    for server in servers:
        server.engine.gate.set()
        server.close()
        server.engine.close()


@pytest.fixture(scope="session")
def shared_live() -> Iterator[LiveServer]:
    """One real server with every default."""
    engine = FakeEngine()
    server = LiveServer(build(engine), engine)
    yield server
    server.close()
    engine.close()


@pytest.fixture
def live(shared_live: LiveServer) -> LiveServer:
    shared_live.engine.requests.clear()
    shared_live.engine.aborted.clear()
    return shared_live
