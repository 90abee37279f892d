"""`jaxserve convert` and the server on what it wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import httpx
import pytest

from jaxserve.resolve import bundled_model_dir


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jaxserve", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"COLUMNS": "200"}
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "story"
    done = run("convert", str(bundled_model_dir()), str(out))
    assert done.returncode == 0, done.stderr
    assert f"wrote {out}" in done.stderr
    return out


def test_the_server_gives_the_same_tokens(converted, serve, bundled_server):
    """By URL: the tokenizer, chat template and generation settings come along."""
    flags = ("--max-num-seqs", "16", "--max-model-len", "512", "--max-num-batched-tokens", "64")
    server = serve(f"file://{converted}", *flags)
    assert [model["id"] for model in httpx.get(f"{server.url}/v1/models", timeout=30).json()["data"]] == ["story"]
    chat = {"messages": [{"role": "user", "content": "Tell me about a dog."}]}
    for path, body in (("completions", {"prompt": "Once upon a time"}), ("chat/completions", chat)):
        answers = [
            httpx.post(f"{url}/v1/{path}", json={"model": "story", "seed": 7, "max_tokens": 40, **body}, timeout=120)
            for url in (server.url, bundled_server.url)
        ]
        ours, theirs = (answer.json()["choices"] for answer in answers)
        assert ours == theirs
        assert answers[0].json()["usage"]["completion_tokens"] > 1
    assert server.stop() == 0


def test_refusals_are_one_sentence(converted, tmp_path):
    damaged = shutil.copytree(converted, tmp_path / "damaged")
    (damaged / "params" / "manifest.ocdbt").unlink()
    out = str(tmp_path / "out")
    for arguments, says in (
        (("convert", str(bundled_model_dir()), str(converted)), "is not an empty directory"),
        (("convert", str(tmp_path / "nothing"), out), "does not exist"),
        (("convert", str(tmp_path), out), "has no config.json"),
        (("serve", str(damaged), "--port", "0"), "it has no manifest.ocdbt"),
        (("serve", f"file://{tmp_path}/nothing", "--port", "0"), "holds no model that `jaxserve convert` wrote"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert says in sentence
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
