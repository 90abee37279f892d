"""What the kernels for Hopper refuse, so that a start ends with a sentence or falls back to others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu.shapes import SHAPES, model_config
from jaxserve.errors import ModelLoadError
from jaxserve.models import choose_weights
from jaxserve.models.kernels.choice import choose_backends
from jaxserve.models.kernels.target import Target
from jaxserve.options import EngineOptions

HOPPER = Target("gpu", "9.0")


@pytest.mark.parametrize("name", SHAPES)
def test_models_that_hopper_serves(name):
    backends = choose_backends("mosaic", "mosaic", HOPPER, model_config(name, 2).layers)
    assert (backends.attention.name, backends.matmul.name) == ("mosaic", "mosaic")


@pytest.mark.parametrize("target", [Target("gpu", "8.0"), Target("gpu", "10.0"), Target("cpu"), Target("tpu")])
@pytest.mark.parametrize("seam", ["attention", "matmul"])
def test_other_devices(target, seam):
    names = {"attention": None, "matmul": None} | {seam: "mosaic"}
    with pytest.raises(ModelLoadError, match=f"--{seam} mosaic needs a Hopper GPU"):
        choose_backends(**names, target=target, layers=model_config("llama-3.1-8b", 1).layers)


def test_quantised_weights():
    config = choose_weights(model_config("qwen3-30b-a3b", 1), quantize="int8")
    with pytest.raises(ModelLoadError, match="--matmul mosaic multiplies unquantised weights only"):
        choose_backends("mosaic", "mosaic", HOPPER, config.layers)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"head_dim": 24}, "multiple of 16"), ({"num_heads": 520}, "64 query heads")]
)
def test_odd_heads(changes, reason):
    (layer,) = model_config("llama-3.1-8b", 1).layers
    odd = replace(layer, attention=replace(layer.attention, **changes))
    with pytest.raises(ModelLoadError, match=reason):
        choose_backends("mosaic", None, HOPPER, [odd])


def test_loops_of_gpus_have_fixed_ends():
    chosen = {platform: choose_backends("blocked", None, platform).attention for platform in ("cpu", "gpu", "tpu")}
    assert {platform: backend.fixed_trips for platform, backend in chosen.items()} == {
        "cpu": False,
        "gpu": True,
        "tpu": False,
    }


def test_deterministic_means_products_of_one_order():
    options = EngineOptions(Path("model"), deterministic=True)
    assert [options.matmul_on(platform) for platform in ("gpu", "cpu", "tpu")] == ["mosaic_fixed", None, None]
    with pytest.raises(ModelLoadError, match="--deterministic takes --matmul mosaic_fixed, not xla"):
        replace(options, matmul="xla").matmul_on("gpu")
    layers = model_config("qwen3-30b-a3b", 1).layers
    assert choose_backends(None, options.matmul_on("gpu"), HOPPER, layers).matmul.fixed
    with pytest.raises(ModelLoadError, match="--matmul mosaic_fixed needs a Hopper GPU"):
        choose_backends(None, options.matmul_on("gpu"), Target("gpu", "8.0"), layers)


def test_nothing_asked_for_gives_what_runs_everywhere():
    backends = choose_backends(None, None, HOPPER, model_config("llama-3.1-8b", 1).layers)
    assert (backends.attention.name, backends.matmul.name) == ("blocked", "xla")
