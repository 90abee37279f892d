"""A server of images that misbehaves by the path it is asked for, and says what it was asked."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from pictures import noise, stored

from jaxserve.images.addresses import Address, is_public

PICTURE = stored(noise(1), "PNG")


@dataclass
class FileServer:
    """Serves at `address`, where PICTURE is at /image.png."""

    address: str
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                with suppress(OSError):
                    outer.answers.get(self.path.partition("?")[0], plain())(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((self.address, 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.answers |= BEHAVIOURS

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, host: str | None = None) -> str:
        return f"http://{host or self.address}:{self.port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


Answer = Callable[[BaseHTTPRequestHandler], None]


def plain(body: bytes = PICTURE, kind: str | None = "image/png", status: int = 200, **headers: str) -> Answer:
    told = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in told.items():
            handler.send_header(name, value)
        if kind is not None:
            handler.send_header("Content-Type", kind)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(to: str, status: int = 302) -> Answer:
    return plain(b"", "text/plain", status, Location=to)


def endless(piece: bytes, pause: float, head: str = "200 OK") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(f"HTTP/1.1 {head}\r\nContent-Type: image/png\r\n\r\n".encode())
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            handler.wfile.write(piece)
            time.sleep(pause)

    return answer


def slow_head(handler: BaseHTTPRequestHandler) -> None:
    for letter in b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100:
        handler.wfile.write(bytes([letter]))
        time.sleep(0.05)


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def broken_off(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\nabc")
    handler.close_connection = True


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n")
    handler.close_connection = True


BEHAVIOURS: dict[str, Answer] = {
    "/image.png": plain(),
    "/octets": plain(kind="application/octet-stream"),
    "/bucket": plain(kind="binary/octet-stream"),
    "/typed": plain(kind="IMAGE/PNG; name=a"),
    "/gzip": plain(gzip.compress(PICTURE), Content_Encoding="gzip"),
    "/moved": redirect("/image.png", 301),
    "/twice": redirect("moved", 307),
    "/loop": redirect("/loop"),
    "/html": plain(b"<html>", "text/html; charset=utf-8"),
    "/untyped": plain(kind=None),
    "/no_image": plain(b"no image at all"),
    "/missing": plain(b"", status=404),
    "/failing": plain(b"", status=500),
    "/nowhere": plain(b"", status=302),
    "/large": plain(bytes(200_000)),
    "/lying": plain(b"", Content_Length=str(10**15)),
    "/endless": endless(bytes(65536), 0.0),
    "/drip": endless(b"x", 0.05),
    "/slow_head": slow_head,
    "/silent": silent,
    "/bomb": plain(gzip.compress(bytes(50 << 20)), Content_Encoding="gzip"),
    "/no_gzip": plain(b"abc", Content_Encoding="gzip"),
    "/brotli": plain(b"abc", Content_Encoding="br"),
    "/broken_off": broken_off,
    "/no_http": no_http,
    "/to_file": redirect("file:///etc/passwd"),
    "/to_ftp": redirect("ftp://127.0.0.1/a.png"),
    "/to_user": redirect("http://a:b@127.0.0.1/a.png"),
    "/cookie": plain(b"", "text/plain", 302, Location="/image.png", Set_Cookie="a=b"),
}


PUBLIC = "127.0.0.2"
"""Stands for a public address; 127.0.0.1 stays a private one."""


def permits(address: Address) -> bool:
    return str(address) == PUBLIC or is_public(address)


@pytest.fixture(scope="module")
def shown() -> Iterator[FileServer]:
    server = FileServer(PUBLIC)
    yield server
    server.close()


@pytest.fixture(scope="module")
def hidden() -> Iterator[FileServer]:
    server = FileServer("127.0.0.1")
    yield server
    server.close()
