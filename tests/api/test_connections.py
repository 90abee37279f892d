"""Connections that are silent, slow, too many or half done, over raw sockets: each comes to an end."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_client import CHAT, COMPLETIONS, check
from api_fakes import FakeEngine, say

from jaxserve.api import connection as connection_module
from jaxserve.options import Limits

MakeLive = Callable[..., Any]
SHORT = 0.3
"""Seconds of the limit that a test waits for."""
PATIENCE = 10.0
"""Seconds that a test waits for what should come after `SHORT`."""
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def connect(server: Any, data: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    sock.sendall(data)
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes; a reset is a close."""
    found = b""
    try:
        while part := sock.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def parse(answer: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, json.loads(body) if body else None


def assert_refused(answer: bytes, status: int) -> dict[str, str]:
    found, headers, body = parse(answer)
    assert found == status
    check(body, "ErrorResponse")
    assert headers["x-request-id"].startswith("req-")
    assert headers["connection"] == "close"
    return headers


def drip(sock: socket.socket, data: bytes, seconds: float) -> float:
    """Sends a byte every 50 ms until the server closes; how long that took."""
    began = time.monotonic()
    sock.settimeout(0.05)
    for index in range(int(seconds / 0.05)):
        try:
            sock.sendall(data[index % len(data) : index % len(data) + 1])
            if sock.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except OSError:
            break
    sock.settimeout(PATIENCE)
    return time.monotonic() - began


def body_of(**fields: Any) -> bytes:
    return json.dumps({"model": "fake", "prompt": "a", **fields}).encode()


def request_of(body: bytes, path: str = COMPLETIONS) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("sent", [b"", b"P", b"POST /v1/completions HT", HEAD, HEAD + b"X-Long: "])
def test_a_head_must_come_in_time(make_live: MakeLive, sent: bytes) -> None:
    server = make_live(limits=Limits(header_timeout=SHORT))
    sock = connect(server, sent)
    answer = read_all(sock)
    if sent:
        assert_refused(answer, 408)
    else:
        assert answer == b""


def test_a_head_that_drips_gets_no_more_time(make_live: MakeLive) -> None:
    server = make_live(limits=Limits(header_timeout=SHORT))
    sock = connect(server, HEAD)
    assert drip(sock, b"X-Drip: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", PATIENCE) < PATIENCE / 2
    assert_refused(read_all(sock), 408)


def test_the_second_head_must_come_in_time_too(make_live: MakeLive) -> None:
    server = make_live(limits=Limits(header_timeout=SHORT))
    sock = connect(server, request_of(body_of()) + b"POST /v1/comp")
    answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in answer


def test_an_idle_connection_is_closed(make_live: MakeLive) -> None:
    server = make_live(limits=Limits(idle_timeout=1))
    answer = read_all(connect(server, request_of(body_of())))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("part", [b"", b"{"])
def test_a_body_must_come_in_time(make_live: MakeLive, framing: bytes, part: bytes) -> None:
    server = make_live(limits=Limits(body_timeout=SHORT))
    chunk = b"1\r\n{\r\n" if framing.startswith(b"Transfer") and part else part
    sock = connect(server, HEAD + framing + b"\r\n" + chunk)
    assert_refused(read_all(sock), 408)
    assert httpx.post(server.url + COMPLETIONS, content=body_of()).status_code == 200


def test_a_body_that_drips_gets_no_more_time(make_live: MakeLive) -> None:
    server = make_live(limits=Limits(body_timeout=SHORT))
    sock = connect(server, HEAD + b"Content-Length: 1000\r\n\r\n")
    assert drip(sock, b" ", PATIENCE) < PATIENCE / 2
    assert_refused(read_all(sock), 408)


def test_a_large_body_gets_more_time(make_live: MakeLive) -> None:
    server = make_live(limits=Limits(body_timeout=SHORT))
    body = b" " * (2 * 65536) + body_of()
    sock = connect(server, HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
    time.sleep(3 * SHORT)
    sock.sendall(body[-1:])
    assert sock.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/health", "/nothing", CHAT])
def test_who_has_been_answered_is_not_waited_for(
    make_live: MakeLive, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Answered before the body came: the rest is dropped for a while, then the connection."""
    monkeypatch.setattr(connection_module, "_LINGER", SHORT)
    server = make_live(api_keys=("key",))
    method = "POST" if path == CHAT else "GET"
    sock = connect(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n".encode())
    assert sock.recv(12).startswith(b"HTTP/1.1 ")
    assert drip(sock, b"x", PATIENCE) < PATIENCE / 2 or read_all(sock)
    read_all(sock)


def test_a_client_that_reads_nothing_is_left(make_live: MakeLive) -> None:
    engine = FakeEngine(reply=say("x" * 2000), delay=0.005)
    server = make_live(engine, limits=Limits(write_timeout=SHORT))
    server.listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    body = body_of(max_tokens=1900, stream=True, logprobs=True, top_logprobs=5, n=4)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(request_of(body))
    deadline = time.monotonic() + PATIENCE
    while not server.engine.aborted and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.engine.aborted == [server.engine.requests[0].id]
    sock.close()


MOST = 5


@pytest.mark.parametrize("sent", [b"", HEAD, request_of(body_of())], ids=["silent", "half a head", "kept alive"])
def test_too_many_connections_lose_the_quietest(make_live: MakeLive, sent: bytes) -> None:
    server = make_live(limits=Limits(max_connections=MOST))
    quiet = []
    for _ in range(MOST):
        quiet.append(connect(server, sent))
        time.sleep(0.02)
        if sent.endswith(b"}"):
            assert quiet[-1].recv(65536)
    for _ in range(3):
        assert httpx.get(f"{server.url}/health").status_code == 200
    assert read_all(quiet[0]) == b""
    for sock in quiet:
        sock.close()


def test_connections_at_work_are_not_lost(make_live: MakeLive) -> None:
    server = make_live(limits=Limits(max_connections=MOST))
    server.engine.gate.clear()
    working = [connect(server, request_of(body_of())) for _ in range(MOST)]
    deadline = time.monotonic() + PATIENCE
    while len(server.engine.requests) < MOST and time.monotonic() < deadline:
        time.sleep(0.01)
    headers = assert_refused(read_all(connect(server)), 503)
    assert headers["retry-after"] == "5"
    server.engine.gate.set()
    assert all(sock.recv(12) == b"HTTP/1.1 200" for sock in working)
    for sock in working:
        sock.close()


HALF_DONE = {
    "silent": (b"", None),
    "half a head": (HEAD, None),
    "half a body": (HEAD + b"Content-Length: 1000\r\n\r\n{", 503),
    "no body": (HEAD + b"Content-Length: 1000\r\n\r\n", 503),
}


@pytest.mark.parametrize("name", HALF_DONE)
def test_half_done_requests_do_not_hold_up_the_end(make_live: MakeLive, name: str) -> None:
    sent, status = HALF_DONE[name]
    server = make_live()
    socks = [connect(server, sent) for _ in range(20)]
    time.sleep(0.2)
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 5
    for sock in socks:
        answer = read_all(sock)
        assert answer == b"" if status is None else assert_refused(answer, status)


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        HEAD + b"Content-Length: abc\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + b"X-Long: " + b"x" * 100_000,
    ],
)
def test_what_is_no_http_is_answered_in_our_shape(live: Any, sent: bytes) -> None:
    assert_refused(read_all(connect(live, sent)), 400)


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health", "/nothing"])
def test_two_framings_are_refused(live: Any, path: str) -> None:
    sent = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HT"
    )
    answer = read_all(connect(live, sent.encode()))
    assert_refused(answer, 400)
    assert answer.count(b"HTTP/1.1") == 1
    assert live.engine.requests == []


READABLE = ["/health", "/ready", "/metrics", "/version", "/openapi.json", "/v1/models", "/inference/v1/models/fake"]


@pytest.mark.parametrize("path", READABLE)
def test_head_is_get_without_the_body(live: Any, path: str) -> None:
    got, asked = httpx.get(live.url + path), httpx.head(live.url + path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]
    assert asked.headers["x-request-id"]
    if path != "/metrics":  # counts this very request
        assert asked.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_head_is_nothing_for_what_generates(live: Any, path: str) -> None:
    answer = httpx.head(live.url + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert httpx.head(f"{live.url}/nothing").status_code == 404
