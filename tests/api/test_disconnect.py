"""A client that leaves frees the engine at once."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from api_client import CHAT, COMPLETIONS
from api_fakes import FakeEngine, say


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def send(server: Any, path: str, body: dict[str, Any]) -> socket.socket:
    """Posts a request and returns the open connection."""
    data = json.dumps({"model": "fake", "max_tokens": 1500, **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "requests"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "Hi"}], "n": 2}, 1),
        (COMPLETIONS, {"prompt": ["a", "b", "c"]}, 3),
    ],
)
def test_leaving_aborts_every_request(
    make_live: Any, caplog: pytest.LogCaptureFixture, stream: bool, path: str, body: dict[str, Any], requests: int
) -> None:
    caplog.set_level(logging.INFO, "jaxserve.requests")
    server = make_live(FakeEngine(reply=say("x" * 5000), delay=0.01))
    connection = send(server, path, {**body, "stream": stream})
    if stream:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert eventually(lambda: len(server.engine.requests) == requests)
    time.sleep(0.05)
    assert server.engine.aborted == []
    connection.close()
    assert eventually(lambda: len(server.engine.aborted) == requests), "the engine still works for nobody"
    assert set(server.engine.aborted) == {request.id for request in server.engine.requests}
    assert eventually(lambda: any('"status": 499' in record.message for record in caplog.records))


def test_leaving_before_the_first_token(make_live: Any) -> None:
    server = make_live()
    server.engine.gate.clear()
    connections = [send(server, COMPLETIONS, {"prompt": "a", "stream": stream}) for stream in (False, True)]
    assert eventually(lambda: len(server.engine.requests) == 2)
    for connection in connections:
        connection.close()
    assert eventually(lambda: len(server.engine.aborted) == 2)


def test_leaving_in_the_middle_of_the_body(make_live: Any) -> None:
    server = make_live()
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    time.sleep(0.05)
    connection.close()
    again = send(server, COMPLETIONS, {"prompt": "a"})
    assert again.recv(100).startswith(b"HTTP/1.1 200")
    assert len(server.engine.requests) == 1


def test_an_answer_that_is_complete_aborts_nothing(live: Any) -> None:
    connection = send(live, COMPLETIONS, {"prompt": "a"})
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    connection.close()
    time.sleep(0.05)
    assert live.engine.aborted == []
    assert live.engine.running == set()
