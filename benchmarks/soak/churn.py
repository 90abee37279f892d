"""Clients that come, leave at every stage, or stop reading; and what the process keeps of them."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from benchmarks.soak.bodies import Asked, asked
from benchmarks.soak.server import Figures, Watched

CLIENTS = 6
_SETTLE = 3.0
"""Seconds after which what was abandoned must be gone."""
_PATIENCE = 30.0


class Client:
    """One client's connection, by hand: it may end anywhere."""

    def __init__(self, url: str, wanted: Asked, rng: random.Random) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=_PATIENCE)
        self._wanted, self._rng = wanted, rng

    def send(self, share: float = 1.0, **more: object) -> None:
        """Sends this share of the request's bytes."""
        body = json.dumps(self._wanted.body | more).encode()
        head = (
            f"POST {self._wanted.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        data = head.encode() + body
        self._socket.sendall(data[: int(share * len(data))])

    def read(self, most: int = 1 << 30) -> bytes:
        """Up to `most` bytes of the answer, fewer where it ends."""
        data = b""
        while len(data) < most and (piece := self._socket.recv(1 << 16)):
            data += piece
        return data

    def pause(self, most: float) -> None:
        """Waits up to `most` seconds."""
        time.sleep(self._rng.random() * most)

    def leave(self) -> None:
        """With a FIN or, every second time, a reset."""
        if self._rng.random() < 0.5:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def _connects(client: Client) -> None:
    client.pause(0.05)


def _half_a_head(client: Client) -> None:
    client.send(0.05)


def _half_a_body(client: Client) -> None:
    client.send(0.8)
    client.pause(0.05)


def _before_the_engine(client: Client) -> None:
    client.send()


def _while_it_waits(client: Client) -> None:
    client.send(n=4, stream=False)
    client.pause(0.02)


def _while_its_prompt_is_read(client: Client) -> None:
    client.send(stream=True, max_tokens=200, ignore_eos=True)
    client.pause(0.01)


def _after_the_first_event(client: Client) -> None:
    client.send(stream=True, max_tokens=200, ignore_eos=True)
    client.read(1)


def _in_the_middle(client: Client) -> None:
    client.send(stream=True, max_tokens=200, ignore_eos=True)
    client.read(4000)


def _with_the_last_event(client: Client) -> None:
    client.send(stream=True)
    client.read()


STAGES: dict[str, Callable[[Client], None]] = {
    "connects": _connects,
    "half a head": _half_a_head,
    "half a body": _half_a_body,
    "before the engine has it": _before_the_engine,
    "while it waits": _while_it_waits,
    "while its prompt is read": _while_its_prompt_is_read,
    "after the first event": _after_the_first_event,
    "in the middle": _in_the_middle,
    "with the last event": _with_the_last_event,
}
"""Nine stages at which a client vanishes."""


@dataclass(frozen=True)
class Churned:
    """The process before and after, both times with nothing to do."""

    seconds: float
    requests: dict[str, int]
    """By the stage at which their clients left."""
    before: Figures
    middle: Figures
    after: Figures
    healthy: bool

    @property
    def grown_mb(self) -> float:
        """Resident memory that the second half added."""
        return self.after.resident_mb - self.middle.resident_mb

    def line(self) -> str:
        """All of it in words."""
        moments = {name: asdict(getattr(self, name)) for name in ("before", "middle", "after")}
        return f"{sum(self.requests.values())} clients in {self.seconds:.0f} s, healthy {self.healthy}: " + "; ".join(
            f"{name} {moment['resident_mb']:.1f} MB, {moment['files']} files, {moment['threads']} threads, "
            f"{moment['free_pages']} free pages"
            for name, moment in moments.items()
        )


def churn(server: Watched, seconds: float, *, seed: int = 0) -> Churned:
    """Clients for so many seconds, in two halves with a look between them."""
    # What is made once for each kind of request and client is no growth.
    _crowd(server.url, min(10.0, seconds / 4), seed + 1)
    before = _settled(server)
    seen = _crowd(server.url, seconds / 2, seed + 2)
    middle = _settled(server)
    seen += _crowd(server.url, seconds / 2, seed + 3)
    after = _settled(server)
    return Churned(seconds, dict(seen), before, middle, after, bool(server.engine("healthy")))


def _settled(server: Watched) -> Figures:
    server.wait_idle()
    time.sleep(_SETTLE)  # the engine's own check of pages and slots runs after a second of silence
    return server.look()


def _crowd(url: str, seconds: float, seed: int) -> Counter[str]:
    until, seen = time.monotonic() + seconds, Counter[str]()

    def come_and_go(index: int) -> None:
        rng = random.Random(seed * 1000 + index)
        while time.monotonic() < until:
            stage = rng.choice(tuple(STAGES))
            client = Client(url, asked(rng.randrange(1 << 30)), rng)
            STAGES[stage](client)
            client.leave()
            seen[stage] += 1

    threads = [threading.Thread(target=come_and_go, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen
