"""What hostile requests cost: the time to refuse each, and what an innocent stream beside it notices.

    python -m benchmarks.hostile [--model MODEL] [--only TEXT] [--json FILE] [-- FLAGS OF SERVE]

Starts the real server, on the bundled model unless another is named, and a process that streams an innocent answer
over and over. Each attack is then fired once (as many times at once as it says); shown are its size, the statuses and
the size of the answers, the seconds until the last answer, and the longest silence within an innocent stream meanwhile.
The first row is the silence with no attack at all: the machine's own.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "Hi"}
SECONDS = 120


@dataclass(frozen=True)
class Attack:
    """A body, or bytes for the bare socket."""

    name: str
    path: str
    body: Callable[[], bytes]
    at_once: int = 1
    headers: tuple[tuple[str, str], ...] = ()


def chat(**fields: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({"model": "story", "messages": [USER], **fields}).encode()


def completion(**fields: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({"model": "story", "prompt": "Hi", **fields}).encode()


def numbered(count: int) -> dict[str, int]:
    return {f"key {index}": index for index in range(count)}


def repeated(item: str, size: int) -> Callable[[], bytes]:
    """A JSON list of `size` bytes under a known field."""
    return lambda: b'{"model": "story", "prompt": [' + f"{item},".encode() * (size // (len(item) + 1)) + b"1]}"


MIB = 1 << 20
ATTACKS = (
    Attack("4,000 messages that are numbers", CHAT, chat(messages=[1] * 4000)),
    Attack("a million messages that are numbers", CHAT, chat(messages=[1] * 1_000_000)),
    Attack("4,000 messages of 100 unknown keys", CHAT, chat(messages=[{**USER, **numbered(100)}] * 4000)),
    Attack("a million unknown keys", CHAT, lambda: json.dumps(numbered(1_000_000)).encode()),
    Attack("400,000 unknown keys", CHAT, lambda: json.dumps(numbered(400_000)).encode()),
    Attack("100,000 parts of an unknown type", CHAT, chat(messages=[{**USER, "content": [{"type": "x"}] * 100_000}])),
    Attack("a name of 15 MiB", CHAT, chat(**{"x" * 15 * MIB: 1})),
    Attack("16 MiB of numbers", COMPLETIONS, repeated("1", 16 * MIB - 100)),
    Attack("16 MiB of lists", COMPLETIONS, repeated("[]", 16 * MIB - 100)),
    Attack("16 MiB of objects", COMPLETIONS, repeated("{}", 16 * MIB - 100)),
    Attack("450,000 lists", COMPLETIONS, repeated("[]", 450_000 * 3)),
    Attack(
        "a tool of 15 MiB",
        CHAT,
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"description": "x" * 15 * MIB}}}]),
    ),
    Attack(
        "a tool of 400,000 values",
        CHAT,
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"enum": [1] * 400_000}}}]),
    ),
    Attack("a prompt of 15 MiB", COMPLETIONS, completion(prompt="Once upon a time. " * (15 * MIB // 18))),
    Attack("a message of 15 MiB", CHAT, chat(messages=[{**USER, "content": "Once upon a time. " * (15 * MIB // 18)}])),
    Attack("a prompt of one letter, 15 MiB", COMPLETIONS, completion(prompt="a" * 15 * MIB)),
    Attack("a prompt of 5,000 characters", COMPLETIONS, completion(prompt="Once upon a time. " * 280)),
    Attack(
        "15 MiB cut to 10 tokens",
        COMPLETIONS,
        completion(prompt="a b " * (15 * MIB // 4), prompt_truncate_len=10, max_tokens=1),
    ),
    Attack("16 prompts of 15 MiB at once", COMPLETIONS, completion(prompt="a b " * (15 * MIB // 4)), at_once=16),
    Attack(
        "escapes, 15 MiB",
        COMPLETIONS,
        lambda: b'{"model": "story", "prompt": "' + b"\\ud83d\\ude00" * (15 * MIB // 12) + b'"}',
    ),
    Attack(
        "a gzip bomb", COMPLETIONS, lambda: gzip.compress(b" " * (1 << 30), 9), headers=(("content-encoding", "gzip"),)
    ),
    Attack("200 requests at once", COMPLETIONS, completion(max_tokens=1), at_once=200),
)


class Innocent:
    """A process that streams the same answer over and over; its file says when the pieces came."""

    def __init__(self, url: str, file: Path) -> None:
        self._file = file
        with file.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.hostile", "--innocent", url], stdout=output
            )
        while not self._pieces():
            time.sleep(0.05)

    def _pieces(self) -> list[tuple[int, float]]:
        """(number of the stream, time) of each piece."""
        lines = self._file.read_text().splitlines(keepends=True)
        return [(int(line.split()[0]), float(line.split()[1])) for line in lines if line.endswith("\n")]

    def longest_silence(self, begin: float, end: float) -> float:
        """Between two pieces of one stream of which one came in a span of time."""
        return max(
            later - earlier
            for (stream, earlier), (same, later) in itertools.pairwise(self._pieces())
            if stream == same and later > begin and earlier < end
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)


def stream_for_ever(url: str) -> None:
    """What the innocent's process does."""
    body = {"model": "story", "prompt": "Once upon a time", "max_tokens": 450, "ignore_eos": True, "stream": True}
    with httpx.Client(timeout=SECONDS) as client:
        for number in itertools.count():
            with client.stream("POST", url + COMPLETIONS, json=body) as answer:
                answer.raise_for_status()
                for piece in answer.iter_raw():
                    if piece.startswith(b"data:"):  # no comment that keeps a waiting stream alive
                        print(number, time.monotonic(), flush=True)


@dataclass(frozen=True)
class Cost:
    """What one attack came to."""

    name: str
    sent_bytes: int
    answered: str
    """Statuses, with how often each came."""
    answer_bytes: int
    seconds: float
    innocent_gap_ms: float


def fire(url: str, attack: Attack, innocent: Innocent) -> Cost:
    body = attack.body()
    headers = {"content-type": "application/json", **dict(attack.headers)}
    limits = httpx.Limits(max_connections=attack.at_once)
    with httpx.Client(timeout=SECONDS, limits=limits) as client, ThreadPoolExecutor(attack.at_once) as pool:
        time.sleep(0.5)
        begin = time.monotonic()
        sent = [
            pool.submit(client.post, url + attack.path, content=body, headers=headers) for _ in range(attack.at_once)
        ]
        answers = [each.result() for each in sent]
    seconds = time.monotonic() - begin
    time.sleep(0.5)
    statuses = [answer.status_code for answer in answers]
    counted = ", ".join(f"{statuses.count(status)} x {status}" for status in sorted(set(statuses)))
    gap = innocent.longest_silence(begin - 0.5, time.monotonic())
    return Cost(attack.name, len(body), counted, max(len(a.content) for a in answers), seconds, gap * 1e3)


def hold(url: str, count: int, sent: bytes, innocent: Innocent, name: str) -> Cost:
    """Opens connections that never go on; how long until the server has closed them all."""
    address = httpx.URL(url)
    begin = time.monotonic()
    socks = [socket.create_connection((address.host, address.port or 80)) for _ in range(count)]
    for sock in socks:
        sock.sendall(sent)
        sock.settimeout(SECONDS)
    answer = b""
    for sock in socks:
        try:
            while part := sock.recv(65536):
                answer = part
        except ConnectionResetError:
            pass
        sock.close()
    end = time.monotonic()
    status = answer.split(b" ")[1].decode() if answer else "closed"
    gap = innocent.longest_silence(begin, end)
    return Cost(name, len(sent), f"{count} x {status}", len(answer), end - begin, gap * 1e3)


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HELD = (
    ("400 silent connections", b""),
    ("400 halves of a head", HEAD),
    ("400 halves of a body", HEAD + b"Content-Length: 100000\r\n\r\n{"),
)


def run(url: str, only: str, innocent: Innocent) -> list[Cost]:
    time.sleep(5)
    now = time.monotonic()
    costs = [Cost("nothing", 0, "", 0, 5.0, innocent.longest_silence(now - 5, now) * 1e3)]
    show(costs[0])
    for attack in ATTACKS:
        if only in attack.name:
            costs.append(fire(url, attack, innocent))
            show(costs[-1])
    for name, sent in HELD:
        if only in name:
            costs.append(hold(url, 400, sent, innocent, name))
            show(costs[-1])
    return costs


def show(cost: Cost) -> None:
    print(
        f"| {cost.name} | {cost.sent_bytes:,} | {cost.answered} | {cost.answer_bytes:,} | {cost.seconds:.2f}"
        f" | {cost.innocent_gap_ms:.0f} |",
        flush=True,
    )


def serve(model: str, flags: list[str], log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The server as a process, ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jaxserve", "serve", model, "--port", str(port), "--served-model-name", "story"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=output, env=dict(os.environ))
    url = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return process, url
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(log.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="story", help="what `serve` takes; default: the bundled one")
    parser.add_argument("--only", default="", help="attacks whose name holds this text")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("flags", nargs="*", help="flags of the server, behind --")
    parser.add_argument("--innocent", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.innocent:
        stream_for_ever(options.innocent)
        return
    with tempfile.TemporaryDirectory() as directory:
        process, url = serve(options.model, options.flags, Path(directory) / "log.txt")
        try:
            print("| Attack | Bytes | Answers | Bytes | Seconds | Longest silence of the innocent, ms |")
            print("|---|---|---|---|---|---|")
            innocent = Innocent(url, Path(directory) / "pieces.txt")
            try:
                costs = run(url, options.only, innocent)
            finally:
                innocent.close()
        finally:
            process.terminate()
            process.wait(60)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


if __name__ == "__main__":
    main()
