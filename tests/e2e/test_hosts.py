"""One model over several processes: the tokens of one process, and every way in which a group ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

SMALL = ("--max-num-seqs", "2", "--max-model-len", "512", "--max-num-batched-tokens", "16")
QUICK = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}
"""Compiling, which every process of a group does on CPU, is what takes the time."""
HOST_LOST = 5
PLAIN = {"model": "story", "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}
BODIES: list[dict[str, Any]] = [
    PLAIN,
    PLAIN | {"prompt": ["The dog", "A red ball was"], "logprobs": 2},
    PLAIN | {"temperature": 1.1, "seed": 7, "top_p": 0.9, "repetition_penalty": 1.2, "logit_bias": {"30": 3}},
    PLAIN | {"response_format": {"type": "json_object"}, "max_tokens": 12},
    PLAIN | {"prompt": "Tom and Lily went to the park. " * 6, "n": 2, "temperature": 0.8, "seed": 3},
]
"""Steps that are drawn at once, drawn under masks, and that load slots."""


@dataclass
class Group:
    processes: list[subprocess.Popen[bytes]]
    url: str
    logs: list[Path]

    def log(self, host: int) -> str:
        return self.logs[host].read_text()

    def codes(self, seconds: float) -> list[int]:
        deadline = time.monotonic() + seconds
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]

    def until_ready(self) -> None:
        deadline = time.monotonic() + 600
        while not is_ready(self.url):
            codes = [process.poll() for process in self.processes]
            assert set(codes) == {None}, [path.read_text() for path in self.logs]
            assert time.monotonic() < deadline, [path.read_text() for path in self.logs]
            time.sleep(0.1)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


Start = Callable[..., Group]


@pytest.fixture
def start(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts the processes of a group; `flags` may differ by host."""
    running: list[subprocess.Popen[bytes]] = []
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla"
    secret = tmp_path / "secret"
    secret.write_text("a secret of enough length\n")

    def begin(hosts: int, flags: Callable[[int], tuple[str, ...]] = lambda host: SMALL) -> Group:
        coordinator, port = two_ports(), two_ports()
        logs = [tmp_path / f"log{host}.txt" for host in range(hosts)]
        for host, log in enumerate(logs):
            command = [sys.executable, "-m", "jaxserve", "serve", "story", "--port", str(port)]
            command += ["--coordinator", f"127.0.0.1:{coordinator}", "--num-hosts", str(hosts), "--host-id", str(host)]
            command += ["--host-secret-file", str(secret), *flags(host)]
            with log.open("wb") as output:
                env = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache), **QUICK}
                running.append(subprocess.Popen(command, stdout=output, stderr=output, env=env))
        return Group(running[-hosts:], f"http://127.0.0.1:{port}", logs)

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def two_ports() -> int:
    """A free port whose successor is free as well."""
    import socket

    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def answers(url: str) -> list[Any]:
    found = []
    for body in BODIES:
        response = httpx.post(f"{url}/v1/completions", json=body, timeout=120)
        assert response.status_code == 200, response.text
        choices = response.json()["choices"]
        found.append([(c["text"], c["finish_reason"], (c.get("logprobs") or {}).get("token_ids")) for c in choices])
    return found


def stream_until(url: str, act: Callable[[], None], timeout: float = 30) -> list[str]:
    """The lines of a long stream in the middle of which something happens."""
    body = PLAIN | {"max_tokens": 400, "stream": True, "ignore_eos": True}
    lines: list[str] = []
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=timeout) as response:
        for line in response.iter_lines():
            lines += [line] if line else []
            if len(lines) == 3:
                act()
    return lines


@pytest.mark.timeout(900)
def test_two_hosts_give_the_tokens_of_one_and_end_when_one_is_lost(start, serve):
    group = start(2)
    group.until_ready()
    assert "of 7.2 MB" in group.log(1)
    assert "3.6 MB" in group.log(1)
    found = answers(group.url)
    lines = stream_until(group.url, group.processes[1].kill)
    assert group.codes(10) == [HOST_LOST, -signal.SIGKILL]
    assert lines[-1] != "data: [DONE]"
    assert "error" in json.loads(lines[-1].removeprefix("data: "))
    assert "host 1 is gone" in group.log(0)
    alone = serve(None, *SMALL, env=QUICK)
    assert found == answers(alone.url)
    alone.stop()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (lambda host: (*SMALL[2:], "--max-num-seqs", str(2 + host)), "host 1 differs in --max-num-seqs: 3 there, 2 on"),
        (lambda host: (*SMALL, "--mesh", "1") if host else (*SMALL, "--mesh", "3"), "host 1 differs in --mesh"),
    ],
)
def test_hosts_that_differ_do_not_start(start, flags, message):
    group = start(2, flags)
    assert group.codes(60) == [2, 2]
    assert all(message in " ".join(group.log(host).split()) for host in range(2))


def test_each_host_reads_the_shards_of_its_own_devices(tmp_path):
    """Elements read by each of two processes, over all parameters: what is split is read once in all."""
    script = Path(__file__).parent / "reading_process.py"
    port = two_ports()
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(port), str(host)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for host in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    counts = [json.loads(output.decode().splitlines()[-1]) for output, _ in outputs]
    assert counts[0] == counts[1]
    assert counts[0]["read"] == counts[0]["held"] < 0.51 * counts[0]["all"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_hosts_give_the_tokens_of_one_and_end_together(start, serve):
    group = start(4)
    group.until_ready()
    found = answers(group.url)
    group.processes[0].terminate()
    assert group.codes(40) == [0] * 4
    alone = serve(None, *SMALL, env=QUICK)
    assert found == answers(alone.url)
    alone.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ending", ["leader killed", "follower terminated", "follower stopped"])
def test_every_end_is_the_end_of_all(start, ending):
    group = start(2, lambda host: (*SMALL, "--shutdown-timeout", "120"))
    group.until_ready()
    leader, follower = group.processes
    if ending == "leader killed":
        leader.kill()
        assert group.codes(10) == [-signal.SIGKILL, HOST_LOST]
    elif ending == "follower terminated":
        lines = stream_until(group.url, follower.terminate, 150)
        assert lines[-1] == "data: [DONE]", "what runs may finish"
        assert group.codes(120) == [0, 0]
    else:
        lines = stream_until(group.url, lambda: follower.send_signal(signal.SIGSTOP))
        assert "error" in json.loads(lines[-1].removeprefix("data: "))
        assert leader.wait(10) == HOST_LOST
        follower.send_signal(signal.SIGCONT)
        # It finds both our link and jax's coordinator gone at once, and jax ends a process without one by abort.
        assert follower.wait(10) in (HOST_LOST, -signal.SIGABRT)
