"""Two replicas under Ray Serve: equal beginnings meet the same one, and a killed one takes its own with it only."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

ray = pytest.importorskip("ray")
serve = pytest.importorskip("ray.serve")

pytestmark = pytest.mark.timeout(900)
SMALL = {"max_num_seqs": 4, "max_model_len": 512, "max_num_batched_tokens": 16}
PLAIN = {"model": "story", "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def replicas():
    """Two replicas of the story model; what Ray started ends with the module."""
    from jaxserve.ray import app

    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ray.init(num_cpus=8, include_dashboard=False, runtime_env={"env_vars": environment})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"port": port})
    serve.run(app("story", replicas=2, **SMALL), name="jaxserve")
    yield f"http://127.0.0.1:{port}/v1"
    serve.shutdown()
    ray.shutdown()


def processes() -> set[int]:
    """Of the replicas: Ray names them."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_text().startswith("ray::ServeReplica:jaxserve:Replica"):
                found.add(int(entry.parent.name))
        except OSError:
            continue
    return found


def ask(url: str, prompt: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/completions", json=PLAIN | {"prompt": prompt} | more, timeout=120)


def where(url: str, prompt: str, **more: Any) -> str:
    """The replica that answers."""
    response = ask(url, prompt, **more)
    assert response.status_code == 200, response.text
    return response.headers["x-replica"]


def test_the_api_is_the_servers(replicas):
    assert httpx.get(f"{replicas}/models", timeout=60).json()["data"][0]["id"] == "story"
    refused = ask(replicas, "Once", temperature=9)
    assert refused.status_code == 422
    assert "temperature" in refused.text
    whole = ask(replicas, "Once upon a time").json()["choices"][0]["text"]
    with httpx.stream(
        "POST", f"{replicas}/completions", json=PLAIN | {"prompt": "Once upon a time", "stream": True}, timeout=60
    ) as stream:
        lines = [line for line in stream.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert len(lines) > 4
    assert whole


def test_equal_beginnings_meet_the_same_replica(replicas):
    prompts = [f"Story number {number}. " * 8 for number in range(12)]
    first = [where(replicas, prompt) for prompt in prompts]
    assert [where(replicas, prompt) for prompt in prompts] == first
    assert len(set(first)) == 2
    cached = ask(replicas, prompts[0]).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    isolated = Counter(where(replicas, prompts[0], prompt_cache_isolation_key=str(number)) for number in range(12))
    assert len(isolated) == 2


class Asked(threading.Thread):
    """A long request, whole or streamed."""

    def __init__(self, url: str, prompt: str, *, stream: bool) -> None:
        super().__init__()
        self.body = PLAIN | {"prompt": prompt, "max_tokens": 300, "ignore_eos": True, "stream": stream}
        self.url = f"{url}/completions"
        self.status: int | None = None
        self.lines: list[str] = []
        self.started = threading.Event()
        self.start()

    def run(self) -> None:
        with httpx.stream("POST", self.url, json=self.body, timeout=300) as response:
            self.status = response.status_code
            for line in response.iter_lines():
                self.lines += [line] if line else []
                self.started.set()


def test_a_killed_replica_loses_its_own_streams_only(replicas):
    prompts = [f"Tale number {number}. " * 8 for number in range(10)]
    before = {prompt: where(replicas, prompt) for prompt in prompts}
    assert len(set(before.values())) == 2
    streams = {prompt: Asked(replicas, prompt, stream=True) for prompt in prompts[:6]}
    whole = [Asked(replicas, prompt, stream=False) for prompt in prompts]
    for each in streams.values():
        assert each.started.wait(120)
    victims = processes()
    assert len(victims) == 2
    os.kill(min(victims), signal.SIGKILL)
    later = [Asked(replicas, prompt, stream=False) for prompt in prompts]
    for each in (*streams.values(), *whole, *later):
        each.join(300)
    assert {each.status for each in (*whole, *later)} == {200}
    broken = {before[prompt] for prompt, each in streams.items() if each.lines[-1] != "data: [DONE]"}
    fine = {before[prompt] for prompt, each in streams.items() if each.lines[-1] == "data: [DONE]"}
    assert len(broken) <= 1
    assert not broken & fine
    assert all("replica_lost" in each.lines[-1] for prompt, each in streams.items() if before[prompt] in broken)
    deadline = time.monotonic() + 300
    while len(processes()) < 2:
        assert time.monotonic() < deadline, "the lost replica does not come back"
        time.sleep(1)
