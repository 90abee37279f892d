"""A fresh checkout installs, serves and answers, with nothing but Python, make and a package index. Minutes long."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT = 700  # a model of 135M parameters compiles all its programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def environment() -> dict[str, str]:
    """This process's environment without its virtual environment and settings of ours."""
    kept = {"HOME", "TMPDIR", "LANG", "http_proxy", "https_proxy", "no_proxy"}
    env = {name: value for name, value in os.environ.items() if name in kept or name.startswith("PIP_")}
    path = [entry for entry in os.environ["PATH"].split(":") if Path(entry) != Path(sys.executable).parent]
    return {**env, "PATH": ":".join(path), "PYTHON": sys.executable}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would hand out, with changes and new files that are not ignored."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    copy = tmp_path_factory.mktemp("checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, copy / name
        if source.exists() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return copy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(command: list[str], cwd: Path, port: int) -> Iterator[tuple[str, Path]]:
    """Runs a command that serves; yields the address once it is ready, and the file with what it says."""
    address, log = f"http://127.0.0.1:{port}", cwd / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_LIMIT
        while not is_ready(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address, log
    finally:
        process.terminate()
        process.wait(60)


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def complete(address: str) -> str:
    with urllib.request.urlopen(f"{address}/v1/models", timeout=30) as response:
        model = json.load(response)["data"][0]["id"]
    body = json.dumps({"model": model, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}).encode()
    request = urllib.request.Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        text: str = json.load(response)["choices"][0]["text"]
        return text


def test_tpu_setup_serves_on_the_cpu_where_it_may_and_leaves_nothing(checkout: Path) -> None:
    if any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*")):
        pytest.skip("this machine has a TPU")
    port = free_port()
    with server(["./tpu_setup.sh", "--allow-cpu", "story", str(port), "--max-num-seqs", "2"], checkout, port) as (
        address,
        log,
    ):
        assert "serving on the CPU, as --allow-cpu says" in log.read_text()
        assert complete(address)

    def script(*arguments: str) -> str:
        command = ["./tpu_setup.sh", *arguments]
        done = subprocess.run(command, cwd=checkout, env=environment(), text=True, capture_output=True, check=True)
        return done.stderr

    assert "installing" not in script("--allow-cpu", "--no-start")
    assert "removed" in script("--uninstall")
    assert not (checkout / ".venv").exists()


def test_make_serve_answers(checkout: Path) -> None:
    port = free_port()
    with server(["make", "serve", f"PORT={port}"], checkout, port) as (address, _):
        assert complete(address)


def test_wheel_carries_the_bundled_model_and_runs_alone(checkout: Path, tmp_path: Path) -> None:
    def pip(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "pip", *arguments], env=environment(), check=True, timeout=600)

    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(checkout))
    (wheel,) = tmp_path.glob("jaxserve-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(checkout)) for path in (checkout / "jaxserve").rglob("*") if path.is_file()}
    missing = {name for name in package if "__pycache__" not in name} - names
    assert missing == set()
    assert "jaxserve/py.typed" in names
    assert any(name.startswith("jaxserve/_bundled/") and name.endswith(".safetensors") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/", "models/")) for name in names)

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], env=environment(), check=True, timeout=600)
    command = [tmp_path / "venv/bin/jaxserve", "generate", "--prompt", "Once upon a time", "--max-tokens", "8"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
