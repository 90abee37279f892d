"""Orbax stores: what `convert` writes is what was there, on every mesh and in both layer loops."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

from jaxserve import models
from jaxserve.models import orbax_writer
from jaxserve.models.conversion import convert
from jaxserve.models.orbax_store import open_store

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"
NAMES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())

OTHER_QUANTISED = ("glm4_moe_fp8_rows", "minimax_m2_fp8")
SHARDED = ("deepseek_v3_fp8", "gpt_oss", "gpt_oss_mxfp4", "mistral_window")


def same(one, other):
    """Whether two models have the same parameters, bit for bit, though one may hold 16-bit weights as float32."""
    return all(
        a.shape == b.shape and _wide(a).tobytes() == _wide(b).tobytes()
        for a, b in zip(one.leaves, other.leaves, strict=True)
    )


def _wide(array):
    return np.asarray(array, np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else np.asarray(array)


@pytest.fixture
def stored(tmp_path):
    """A converted one-layer model, to be damaged."""
    convert(FIXTURES / "qwen3_one_layer", tmp_path / "stored")
    return tmp_path / "stored"


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name, tmp_path):
    convert(FIXTURES / name, tmp_path / "out")
    for options in ({"layer_loop": "unroll"}, {"layer_loop": "scan"}, {"layer_loop": "scan", "dtype": "bfloat16"}):
        assert same(models.load_model(tmp_path / "out", **options), models.load_model(FIXTURES / name, **options))


@pytest.mark.parametrize("name", ["mistral_window", "gpt_oss"])
def test_logits_of_a_store_have_the_same_bits(name, tmp_path, make_session, served):
    ids = np.load(FIXTURES / name / "expected.npz")["ids"][:8]
    convert(FIXTURES / name, tmp_path / "out")
    session = make_session(models.load_model(tmp_path / "out", layer_loop="scan"))
    np.testing.assert_array_equal(session.run([(0, 0, ids)], 8)[0], served(name).run([(0, 0, ids)], 8)[0])


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """What orbax_sharded_run.py found on 8 virtual devices, and the models that it wrote there."""
    folder = tmp_path_factory.mktemp("sharded")
    for name in SHARDED:
        convert(FIXTURES / name, folder / "from_1" / name)
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    script = Path(__file__).parent / "orbax_sharded_run.py"
    done = subprocess.run(
        [sys.executable, str(script), str(FIXTURES), str(folder)], env=env, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), folder


def test_one_device_to_eight(sharded):
    """Shards and logits on 8 devices are those of the hub's directory; each device reads its own part only."""
    report, _ = sharded
    assert report["devices"] == 8
    assert len(report["runs"]) == 2 * len(SHARDED)
    assert [run["same_logits"] for run in report["runs"].values()].count(True) == 2
    for name, run in report["runs"].items():
        assert run["same_parameters"], name
        assert run["same_logits"] in (True, None), name
        assert run["split"] > 0, name
        assert run["read"] == run["held"], name


@pytest.mark.parametrize("name", SHARDED)
def test_eight_devices_to_one(name, sharded):
    """Written by orbax from arrays that 8 devices share, in shards."""
    assert same(models.load_model(sharded[1] / "from_8" / name), models.load_model(FIXTURES / name))


@pytest.fixture
def bfloat16_dir(tmp_path):
    """A one-layer model as the hub stores most: bfloat16."""
    folder = tmp_path / "hub"
    shutil.copytree(FIXTURES / "qwen3_one_layer", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    tensors["model.norm.weight"] = np.linspace(0.9, 1.1, 48, dtype=np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_types_are_kept(bfloat16_dir, tmp_path):
    """Served in float32, a bfloat16 model is the same from either layout; so is one with a float32 tensor in it."""
    convert(bfloat16_dir, tmp_path / "out")
    types = {name: array.dtype.name for name, array in arrays_of(tmp_path / "out").items()}
    assert types.pop("norm.weight") == "float32"
    assert set(types.values()) == {"bfloat16"}
    for dtype in ("float32", "bfloat16"):
        ours, theirs = (models.load_model(path, dtype=dtype) for path in (tmp_path / "out", bfloat16_dir))
        assert same(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_types_by_request(dtype, bfloat16_dir, tmp_path):
    convert(bfloat16_dir, tmp_path / "out", dtype=dtype)
    assert {array.dtype.name for array in arrays_of(tmp_path / "out").values()} == {dtype}
    assert same(models.load_model(tmp_path / "out", dtype=dtype), models.load_model(bfloat16_dir, dtype=dtype))


_AND_INT8 = {"weights": "dequantize", "quantize": "int8"}


@pytest.mark.parametrize("how", [{}, {"weights": "dequantize"}, pytest.param(_AND_INT8, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    ["deepseek_v3_fp8", "gpt_oss_mxfp4", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHER_QUANTISED)],
)
def test_quantised_weights(name, how, tmp_path):
    """Codes and scales are arrays like others; what was changed while converting is not changed again."""
    hub = FIXTURES / name
    convert(hub, tmp_path / "out", **how)
    for options in ({"layer_loop": "scan"}, {"layer_loop": "unroll", "dtype": "bfloat16"}):
        assert same(models.load_model(tmp_path / "out", **options), models.load_model(hub, **options, **how))


@pytest.mark.parametrize("name", ["deepseek_v32", "gpt_oss", "qwen3_one_layer"])
def test_quantised_while_converting(name, tmp_path):
    convert(FIXTURES / name, tmp_path / "out", quantize="int8")
    ours = models.load_model(tmp_path / "out")
    assert any(leaf.dtype == np.int8 for leaf in ours.leaves)
    assert same(ours, models.load_model(FIXTURES / name, quantize="int8"))


def arrays_of(model_dir):
    """The arrays of a store, read by orbax itself."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(model_dir / "params")


def test_orbax_reads_what_we_write(stored):
    arrays = arrays_of(stored)
    hub = load_file(FIXTURES / "qwen3_one_layer" / "model.safetensors")
    assert len(arrays) == len(hub)
    ours, theirs = "layers.0.attention.q_proj.weight", "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_array_equal(arrays[ours], hub[theirs])


def test_a_nested_tree_is_read_too(stored):
    """As other programs save: keys joined by dots are the names."""
    arrays = arrays_of(stored)
    tree = {}
    for name, array in arrays.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = array
    shutil.rmtree(stored / "params")
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(stored / "params", tree)
    assert same(models.load_model(stored), models.load_model(FIXTURES / "qwen3_one_layer"))


def test_a_store_is_converted_like_a_hub_directory(stored, tmp_path):
    convert(stored, tmp_path / "again", dtype="bfloat16")
    hub = models.load_model(FIXTURES / "qwen3_one_layer", dtype="bfloat16")
    assert same(models.load_model(tmp_path / "again", dtype="bfloat16"), hub)


def test_large_arrays_are_cut_and_batches_bounded(tmp_path, monkeypatch):
    """Chunks no larger than asked for, none across two experts; never more in memory than a batch, or one array."""
    monkeypatch.setattr(orbax_writer, "_CHUNK_BYTES", 4096)
    monkeypatch.setattr(orbax_writer, "_BATCH_BYTES", 10_000)
    seen = []
    convert(FIXTURES / "qwen3_moe", tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    done = [0, *(count for count, _ in seen)]
    largest = max(array.nbytes for array in arrays_of(tmp_path / "out").values())
    assert len(seen) > 10
    assert max(b - a for a, b in itertools.pairwise(done)) <= max(largest, 10_000)
    assert seen[-1][0] == seen[-1][1] == sum(array.nbytes for array in arrays_of(tmp_path / "out").values())
    for array in open_store(tmp_path / "out").values():
        chunk = array.array.chunk_layout.read_chunk.shape
        assert np.prod(chunk) * array.dtype.itemsize <= 4096
        assert len(chunk) < 3 or chunk[0] == 1
    assert same(models.load_model(tmp_path / "out"), models.load_model(FIXTURES / "qwen3_moe"))


def test_other_files_come_along(tmp_path):
    hub = tmp_path / "hub"
    shutil.copytree(FIXTURES / "qwen3_one_layer", hub)
    kept = ("generation_config.json", "tokenizer.json", "tokenizer.model", "qwen.tiktoken", "vocab.txt", "LICENSE")
    for name in (*kept, "chat_template.jinja"):
        (hub / name).write_text(name)
    (hub / "additional_chat_templates").mkdir()
    (hub / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    for name in ("model.safetensors.index.json.bak", "pytorch_model.bin", ".gitattributes"):
        (hub / name).write_text(name)
    convert(hub, tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    others = {name for name in found if not name.startswith("params/")}
    assert others == {*kept, "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "config.json"}
    assert (tmp_path / "out" / "LICENSE").read_text() == "LICENSE"


def test_progress_reaches_the_total(stored):
    seen = []
    model = models.load_model(stored, progress=lambda done, total: seen.append((done, total)))
    total = sum(leaf.nbytes for leaf in model.leaves)
    assert seen[-1] == (total, total)
