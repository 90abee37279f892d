"""The server as a process: what it says when it can't start, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from safetensors.numpy import load_file, save_file

from jaxserve.resolve import bundled_model_dir

SMALL = ("--max-num-seqs", "2", "--max-model-len", "512", "--max-num-batched-tokens", "16")
"""Few programs to compile, and the same ones for every server here."""


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    command = [sys.executable, "-m", "jaxserve", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundled_model_dir(), tmp_path / "model"))


def edit_config(model: Path, **changes: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(model: Path, change) -> None:
    path = model / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def drop_a_tensor(model):
    edit_weights(model, lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight"))


def add_a_tensor(model):
    edit_weights(model, lambda tensors: tensors.update({"model.layers.0.extra.weight": next(iter(tensors.values()))}))


def unknown_architecture(model):
    edit_config(model, model_type="martian", architectures=["MartianForCausalLM"])


def broken_tokenizer(model):
    for path in model.glob("tokenizer.*"):
        path.write_bytes(b"not a tokenizer")


def truncate_weights(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_config(model):
    (model / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop_a_tensor, "up_proj"),
        (add_a_tensor, "extra"),
        (unknown_architecture, "martian"),
        (broken_tokenizer, "tokenizer"),
        (truncate_weights, "model.safetensors"),
        (no_config, "config.json"),
    ],
)
def test_a_model_that_cannot_be_served_is_one_sentence(model, damage, says):
    damage(model)
    done = run_serve(str(model), "--port", "0")
    assert done.returncode == 2, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, done.stderr
    assert says.lower() in sentences[0].lower()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--mesh", "banana"), "--mesh"),
        (("--mesh", "64"), "--mesh"),
        (("--kv-memory", "lots"), "--kv-memory"),
        (("--kv-memory", "1KiB"), "--kv-memory"),
        (("--max-model-len", "1000000"), "--max-model-len"),
        (("--dtype", "float8"), "--dtype"),
        (("--device-memory", "0.5"), "--device-memory is a share of a GPU's memory"),
        (("--host", "203.0.113.1"), "203.0.113.1"),
    ],
)
def test_bad_flags_are_named(flags, says):
    done = run_serve("story", *flags, "--port", "0")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_directory():
    done = run_serve("/no/such/model", "--port", "0")
    assert done.returncode == 2
    assert "/no/such/model" in done.stderr.replace("\n", "")


def test_sigterm_lets_a_running_stream_finish(serve):
    server = serve(None, *SMALL)
    body = {"model": "story", "prompt": "Once", "max_tokens": 300, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120) as response:
        lines = response.iter_lines()
        first = next(lines)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        rest = [line for line in lines if line]
    stopping.join()
    assert first.startswith("data: ")
    assert rest[-1] == "data: [DONE]"
    assert sum(line.startswith("data: {") for line in rest) > 100
    assert server.process.returncode == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/health", timeout=5)


def test_keys_are_required_when_set(serve):
    server = serve(None, *SMALL, "--api-key", "secret")
    body = {"model": "story", "prompt": "Once", "max_tokens": 2}
    url = f"{server.url}/v1/completions"
    assert httpx.post(url, json=body, timeout=60).status_code == 401
    assert httpx.post(url, json=body, timeout=60, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx.post(url, json=body, timeout=60, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert "secret" not in server.log.read_text()


def test_the_log_is_json_from_beginning_to_end(serve):
    server = serve(None, *SMALL, "--log-format", "json")
    body = {"model": "story", "prompt": "Once", "max_tokens": 2, "user": "ann"}
    assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert all({"time", "level", "logger"} <= line.keys() for line in lines)
    (asked,) = [line for line in lines if line.get("user") == "ann"]
    assert (asked["client"], asked["status"]) == ("127.0.0.1", 200)
    assert any("context" in line for line in lines), "the start-up summary"


CACHED = {
    "model": "story",
    "prompt": "Once upon a time there was a little girl who had a red hat. " * 4,
    "max_tokens": 1,
}


@pytest.mark.parametrize("shared", [False, True])
def test_api_keys_share_cached_prompts_only_when_told_to(serve, shared):
    server = serve(None, *SMALL, *(["--share-prompt-cache"] if shared else []))

    def cached(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.post(f"{server.url}/v1/completions", json=CACHED, headers=headers, timeout=60).json()
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached("one") == 0
    assert cached("one") > 0
    assert (cached("two") > 0) is shared


def test_half_done_requests_do_not_hold_up_sigterm(serve):
    server = serve(None, *SMALL)
    half = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{"
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    socks = [socket.create_connection(address) for _ in range(50)]
    for sock in socks:
        sock.sendall(half)
    while server.metrics()["jaxserve_requests_in_flight"] <= len(socks):
        time.sleep(0.05)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
    assert all(sock.recv(100).startswith(b"HTTP/1.1 503") for sock in socks)


def test_generate_prints_the_same_text_for_the_same_seed(cache_home):
    command = [sys.executable, "-m", "jaxserve", "generate", "--prompt", "Once upon a time", "--max-tokens", "12"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache_home)}
    runs = [
        subprocess.run(
            [*command, "--seed", "4", "--max-model-len", "256"],
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
            env=environment,
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.startswith("Once upon a time")
    assert len(runs[0].stdout) > len("Once upon a time\n")
