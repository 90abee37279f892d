"""How long a request may take: refused, ended with 408 or an error event, and its work dropped."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from api_client import CHAT, COMPLETIONS
from api_fakes import FakeEngine, say
from test_admission import SlowTokenizer
from test_disconnect import eventually

from jaxserve.options import Limits

BODIES = pytest.mark.parametrize(
    ("path", "body"), [(CHAT, {"messages": [{"role": "user", "content": "Hi"}]}), (COMPLETIONS, {"prompt": ["a", "b"]})]
)


def ask(server: Any, path: str, body: dict[str, Any], seconds: str | None = None) -> httpx.Response:
    headers = {} if seconds is None else {"x-request-timeout": seconds}
    return httpx.post(server.url + path, json={"model": "fake", "max_tokens": 900, **body}, headers=headers, timeout=60)


@BODIES
@pytest.mark.parametrize(("allowed", "asked"), [(0.4, None), (None, "0.4"), (50, "0.4"), (0.4, "50")])
def test_it_ends_in_time(
    make_live: Any, path: str, body: dict[str, Any], allowed: float | None, asked: str | None
) -> None:
    server = make_live(FakeEngine(reply=say("x" * 900), delay=0.02), limits=Limits(request_timeout=allowed))
    begun = time.monotonic()
    answer = ask(server, path, body, asked)
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "request_timeout"
    assert "0.4 seconds" in answer.json()["error"]["message"]
    assert 0.4 <= time.monotonic() - begun < 10
    assert eventually(lambda: set(server.engine.aborted) == {request.id for request in server.engine.requests})
    assert server.engine.requests


def test_one_that_waits_ends_too(make_live: Any) -> None:
    server = make_live()
    server.engine.gate.clear()
    assert ask(server, COMPLETIONS, {"prompt": "a"}, "0.3").status_code == 408
    assert eventually(lambda: len(server.engine.aborted) == 1)


def test_one_that_is_still_being_prepared_ends_too(make_live: Any) -> None:
    """Behind others that hold up the threads of templates and tokenizers it would wait for as long as they take."""
    tokenizer = SlowTokenizer()
    server = make_live(FakeEngine(tokenizer=tokenizer))
    begun = time.monotonic()
    try:
        answer = ask(server, COMPLETIONS, {"prompt": "slow"}, "0.3")
    finally:
        tokenizer.gate.set()
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "request_timeout"
    assert time.monotonic() - begun < 10
    assert server.engine.requests == []


def test_a_stream_ends_with_an_error_event(make_live: Any) -> None:
    server = make_live(FakeEngine(reply=say("x" * 900), delay=0.02))
    answer = ask(server, COMPLETIONS, {"prompt": "a", "stream": True}, "0.5")
    assert answer.status_code == 200
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert json.loads(events[0])["choices"][0]["text"] == "x"
    assert json.loads(events[-1] if events[-1] != "[DONE]" else events[-2])["error"]["code"] == "request_timeout"
    assert eventually(lambda: len(server.engine.aborted) == 1)


def test_one_in_time_is_whole(make_live: Any) -> None:
    server = make_live(limits=Limits(request_timeout=30))
    assert ask(server, COMPLETIONS, {"prompt": "a"}).json()["choices"][0]["text"] == "Hello world"
    assert ask(server, COMPLETIONS, {"prompt": "a"}, "20").json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf", ""])
def test_a_wrong_header_is_named(make_live: Any, seconds: str) -> None:
    server = make_live()
    answer = ask(server, COMPLETIONS, {"prompt": "a"}, seconds)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "x-request-timeout"]
    assert server.engine.requests == []


def test_whose_turn_it_is_follows_the_key(make_live: Any) -> None:
    """A key's requests are one client's wherever they come from; without a key the address decides."""
    server = make_live()
    for key in ("k1", "k2", "k1", None, None):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        httpx.post(server.url + COMPLETIONS, json={"model": "fake", "prompt": "a"}, headers=headers)
    clients = [request.client for request in server.engine.requests]
    assert clients[0] == clients[2] != clients[1]
    assert clients[3] == clients[4] == "address 127.0.0.1"
    assert "k1" not in clients[0]
