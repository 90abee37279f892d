"""While the model loads: the port answers, health is green, everything else is told to come back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from api_client import check
from api_fakes import FakeEngine, build
from starlette.testclient import TestClient

from jaxserve.api.starting import StartingApp


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_the_app_takes_over_when_it_is_ready() -> None:
    engine, gate = FakeEngine(), threading.Event()

    def make() -> Any:
        gate.wait()
        return build(engine)

    with TestClient(StartingApp(make, lambda error: None)) as client:
        assert client.get("/health").json() == {"status": "starting"}
        for path in ("/ready", "/v1/models"):
            response = client.get(path)
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            check(response.json(), "ErrorResponse")
            assert response.headers["x-request-id"].startswith("req-")
        assert client.get("/ready", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
        gate.set()
        assert eventually(lambda: client.get("/ready").status_code == 200)
        assert client.get("/health").json() == {"status": "ok"}
        assert client.post("/v1/completions", json={"model": "fake", "prompt": "a"}).status_code == 200
    engine.close()


def test_probes_do_not_fill_the_log_of_a_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jaxserve.requests")
    gate = threading.Event()
    with TestClient(StartingApp(lambda: gate.wait() and None, lambda error: None)) as client:  # type: ignore[arg-type]
        for path in ("/health", "/ready", "/metrics"):
            client.get(path)
        assert caplog.records == []
        client.get("/v1/models")
        assert len(caplog.records) == 1
        gate.set()


def test_a_start_that_fails_is_reported() -> None:
    failures: list[Exception] = []

    def make() -> Any:
        raise ValueError("no such model")

    with TestClient(StartingApp(make, failures.append)) as client:
        assert eventually(lambda: bool(failures))
        assert client.get("/v1/models").status_code == 503
    assert str(failures[0]) == "no such model"
