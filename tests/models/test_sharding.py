"""Tensor parallelism on 8 virtual devices (in a process of its own), and the rules behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxserve import models
from jaxserve.models.registry import supported_model_types
from jaxserve.models.sharding import ShardingRules


def measured(*arguments):
    """What sharded_run.py measures."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    script = Path(__file__).parent / "sharded_run.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(model_fixtures):
    return measured(model_fixtures)


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, 1])
def test_every_golden_family_on_8_devices(part, shared_dir):
    """Logits, experts and greedy tokens with tensor and expert parallelism, on the mesh that a server would choose."""
    served = supported_model_types()
    every = sorted(
        path.parent
        for path in (shared_dir / "golden").glob("*/config.json")
        if json.loads(path.read_text())["model_type"] in served
    )
    assert len(every) > 20
    for name, run in measured("--every", *every[part::2]).items():
        assert run["error"] < 1e-3, (name, run)
        assert run["routed"], (name, run)
        assert run["greedy"], (name, run)


def test_logits_on_8_devices(runs):
    for name, run in runs.items():
        assert run["error"] < 1e-3, (name, run)
        assert run["routed"], name
        assert run["greedy"], (name, run)


def test_two_all_reduces_per_layer(runs):
    """Those of the layers (once in a scanned body), and one for the embedding where the vocabulary is split."""
    assert runs["qwen2 unroll"]["mesh"] == [2, 2, 2]
    assert runs["qwen2 unroll"]["all_reduces"] == 2 * runs["qwen2 unroll"]["layers"]
    assert runs["qwen2 scan"]["all_reduces"] == 2
    assert runs["mistral"]["all_reduces"] == 3


def test_one_all_reduce_per_sparse_layer(runs):
    """6 experts on 2 x 4 devices: number and width are split. A period of 2 scanned layers, and the embedding."""
    assert runs["experts and width"]["mesh"] == [2, 2, 2]
    assert runs["experts and width"]["report"] == []
    assert runs["experts and width"]["all_reduces"] == 2 * 2 + 1


def test_experts_that_do_not_divide_are_reported(runs):
    """Only the shared expert is split: the others' sum must not count 8 times."""
    assert any("experts are not split over mesh axes replica" in line for line in runs["shared only"]["report"])
    assert runs["shared only"]["all_reduces"] == 3


def test_latent_heads_are_split_over_all_axes_that_divide_them(runs):
    """6 heads on 4 x 1 x 2 devices are split in two; on 1 x 2 x 3 each device has one. One all-reduce after them."""
    assert runs["latent"]["mesh"] == [4, 1, 2]
    assert any("latent_heads of 6 is not split over mesh axes replica" in line for line in runs["latent"]["report"])
    for name in ("latent", "one latent head each", "sparse"):
        assert runs[name]["all_reduces"] == 2 * 2, "a dense layer, and a sparse one that is scanned"
    assert not any("latent" in line for line in runs["one latent head each"]["report"])
    shared = runs["sparse"]["all_gathers"] - runs["one latent head each"]["all_gathers"]
    assert shared == 2, "devices share out the tokens whose positions are selected, in both kinds of layer"


def test_the_cache_is_updated_in_place(runs):
    for name, run in runs.items():
        assert run["aliased"], name
        assert run["temporaries_per_cache"] < 0.5, (name, run)


def test_what_does_not_divide_is_reported(runs):
    assert any("attention heads" in line for line in runs["undividable"]["report"])
    assert any("vocab of 257" in line for line in runs["qwen2 unroll"]["report"])
    assert runs["mistral"]["report"] == []


def test_mesh_shapes_follow_the_heads(model_fixtures):
    shapes = {
        name: models.derive_mesh_shape(models.load_config(model_fixtures / name), 8)
        for name in ("gpt_oss", "qwen2_bias", "llama_one_kv_head", "mistral_window", "qwen3_one_layer")
    }
    assert shapes == {
        "gpt_oss": (2, 2, 2),
        "qwen2_bias": (2, 2, 2),
        "llama_one_kv_head": (8, 1, 1),
        "mistral_window": (4, 2, 1),
        "qwen3_one_layer": (8, 1, 1),
    }


def test_colliding_and_unknown_axes_are_refused(model_fixtures):
    rules = ShardingRules.derive(models.load_config(model_fixtures / "qwen2_bias"), models.make_mesh((1, 1, 1)))
    with pytest.raises(ValueError, match="unknown logical axis"):
        rules.spec(("heads",))
    clash = ShardingRules(rules.mesh, (("a", ("kv",)), ("b", ("kv",))), ())
    with pytest.raises(ValueError, match="twice"):
        clash.spec(("a", "b"))
    with pytest.raises(ValueError, match="needs 64 devices"):
        models.make_mesh((4, 4, 4))
