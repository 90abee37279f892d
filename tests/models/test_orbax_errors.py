"""Conversions that can't be made and stores that can't be read: one sentence each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models import orbax_writer
from jaxserve.models.conversion import convert

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"


@pytest.fixture
def stored(tmp_path):
    """A converted one-layer model, to be damaged."""
    convert(FIXTURES / "qwen3_one_layer", tmp_path / "stored")
    return tmp_path / "stored"


def refused(call, *parts):
    with pytest.raises(ModelLoadError) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert message.endswith(".")


def arrays_of(model_dir):
    """The arrays of a store, read by orbax itself."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(model_dir / "params")


def test_the_target_must_be_empty(stored, tmp_path):
    refused(lambda: convert(FIXTURES / "phi3", stored), str(stored), "not an empty directory")
    refused(lambda: convert(FIXTURES / "phi3", stored / "config.json"), "not an empty directory")
    (tmp_path / "empty").mkdir()
    convert(FIXTURES / "phi3", tmp_path / "empty")
    assert models.load_model(tmp_path / "empty").leaves


def test_a_failed_conversion_leaves_nothing(tmp_path, monkeypatch):
    """Neither under its name nor under another."""
    shutil.copytree(FIXTURES / "phi3", tmp_path / "hub")
    monkeypatch.setattr(orbax_writer, "_BATCH_BYTES", 1)

    def cut(done, total):
        if done > total / 2:
            raise ModelLoadError("stopped.")

    refused(lambda: convert(tmp_path / "hub", tmp_path / "out", progress=cut), "stopped")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_a_full_disk_is_one_sentence(tmp_path):
    """A file may not grow beyond 4 kB, less than the largest tensor has: as if there were no space left."""
    script = (
        "import resource, signal, sys; from jaxserve.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000)); main()"
    )
    command = [sys.executable, "-c", script, "convert", str(FIXTURES / "phi3"), str(tmp_path / "out")]
    done = subprocess.run(command, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert sentence == f"error: The checkpoint can't be written to {tmp_path / 'out'}: File too large."
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["_METADATA", "manifest.ocdbt", "_CHECKPOINT_METADATA"])
def test_interrupted(stored, file):
    """Also what a copy leaves that stopped on the way."""
    (stored / "params" / file).unlink()
    refused(lambda: models.load_model(stored), "was interrupted", f"it has no {file}")


def test_not_a_checkpoint(stored):
    shutil.rmtree(stored / "params")
    (stored / "params").mkdir()
    (stored / "params" / "weights.bin").write_bytes(b"x")
    refused(lambda: models.load_model(stored), "is not an orbax checkpoint")


@pytest.mark.parametrize("text", ["{", "[]", '{"tree_metadata": {"a": 1}}', "{}"])
def test_damaged_metadata(stored, text):
    (stored / "params" / "_METADATA").write_text(text)
    refused(lambda: models.load_model(stored), "is damaged", "_METADATA")


def test_damaged_manifest(stored):
    (stored / "params" / "manifest.ocdbt").write_bytes(b"\0" * 100)
    refused(lambda: models.load_model(stored), "is damaged")


def test_truncated_data(stored):
    largest = max((stored / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    refused(lambda: models.load_model(stored), "is damaged: parameter ", "can't be read")


def test_missing_data(stored):
    largest = max((stored / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    refused(lambda: models.load_model(stored), "is damaged: parameter ", "can't be read")


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("norm.weight", lambda tree, name: tree.pop(name), ["lacks parameter norm.weight."]),
        ("x", lambda tree, name: tree.update({name: np.zeros(2)}), ["holds parameter x that a qwen3"]),
        ("embed", lambda tree, name: tree.update({name: tree[name][:-1]}), ["embed has shape", "config.json wants ["]),
        (
            "norm.weight",
            lambda tree, name: tree.update({name: np.ones(48, np.int8)}),
            ["stored as int8, not as float32"],
        ),
    ],
)
def test_another_tree(stored, name, change, parts):
    tree = arrays_of(stored)
    change(tree, name)
    shutil.rmtree(stored / "params")
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(stored / "params", tree)
    refused(lambda: models.load_model(stored), *parts)
