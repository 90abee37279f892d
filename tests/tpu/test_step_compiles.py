"""The real forward program compiles for real TPUs, ahead of time, on this machine."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")

GIB = 2**30


def compile_step(model: str, topology: str, devices: int, tokens: int, num_pages: int, *flags: str) -> dict:
    script = Path(__file__).with_name("compile_step.py")
    command = [sys.executable, str(script), model, topology, str(devices), str(tokens), str(num_pages), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    return report


@pytest.mark.parametrize("tokens", [64, pytest.param(512, marks=pytest.mark.slow)])
def test_tensor_parallel_over_a_v5e_slice(tokens):
    report = compile_step("llama", "v5e:2x4", 8, tokens, 4096)
    assert report["mesh"] == {"replica": 1, "kv": 8, "group": 1}
    assert report["aliased_bytes"] >= report["cache_bytes"], "the KV cache is copied, not updated in place"
    assert report["temporary_bytes"] < 64 * 2**20
    assert report["all_reduces_per_layer"] == 2, "one after the attention output, one after the MLP, per layer"
    assert report["argument_bytes"] + report["temporary_bytes"] < 16 * GIB, "does not fit a v5e chip"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["deepseek_v3", "deepseek_v32"])
def test_latent_attention_over_a_v5e_slice(model):
    """128 heads on 8 chips, each with the whole cache of latents; the experts' weights are turned over in every layer,
    which is what is temporary."""
    report = compile_step(model, "v5e:2x4", 8, 64, 65536)
    assert report["mesh"] == {"replica": 1, "kv": 1, "group": 8}
    assert report["aliased_bytes"] >= report["cache_bytes"], "the cache is copied, not updated in place"
    assert report["temporary_bytes"] < report["cache_bytes"] / 8
    assert report["all_reduces_per_layer"] == 2, "one after the attention output, one after the experts, per layer"
    assert report["argument_bytes"] + report["temporary_bytes"] < 16 * GIB, "does not fit a v5e chip"


def test_70b_in_int8_over_a_v5e_slice():
    """In bfloat16 its weights alone would be more than a chip has; no dequantised matrix is ever written to memory."""
    report = compile_step("llama_70b:int8", "v5e:2x4", 8, 64, 2048)
    assert report["weight_bytes"] < 9.2e9
    assert report["aliased_bytes"] >= report["cache_bytes"], "the KV cache is copied, not updated in place"
    one_matrix = 28672 * 8192 * 2 / 8
    assert report["temporary_bytes"] < one_matrix / 2
    assert report["all_reduces_per_layer"] == 2, "one after the attention output, one after the MLP, per layer"
    assert report["argument_bytes"] + report["temporary_bytes"] < 16 * GIB, "does not fit a v5e chip"


def test_one_v6e_chip():
    report = compile_step("llama", "v6e:2x2", 1, 64, 2048)
    assert report["aliased_bytes"] >= report["cache_bytes"], "the KV cache is copied, not updated in place"
    assert report["temporary_bytes"] < 64 * 2**20
    assert report["all_reduces_per_layer"] == 0
    assert report["argument_bytes"] + report["temporary_bytes"] < 32 * GIB, "does not fit a v6e chip"


@pytest.mark.slow
@pytest.mark.parametrize(("model", "topology", "devices"), [("qwen3_vl", "v5e:2x4", 8), ("qwen2_5_vl", "v6e:2x2", 1)])
def test_towers_write_the_pool_in_place(model, topology, devices):
    """An image of 512 patches, split over the heads of 8 chips, and with windows on one."""
    report = compile_step(model, topology, devices, 512, 0, "--tower")
    assert report["aliased_bytes"] >= report["pool_bytes"], "the pool is copied, not updated in place"
    assert report["temporary_bytes"] < 256 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("topology", "devices"), [("v5e:2x4", 8), ("v6e:2x2", 1)])
def test_gemma_and_its_tower(topology, devices):
    """All 4096 patches of an image, and a step that reads one whole beside decoding rows."""
    tower = compile_step("gemma3", topology, devices, 4096, 0, "--tower")
    assert tower["aliased_bytes"] >= tower["pool_bytes"], "the pool is copied, not updated in place"
    assert tower["temporary_bytes"] < 1024 * 2**20
    report = compile_step("gemma3", topology, devices, 512, 2048)
    assert report["aliased_bytes"] >= report["cache_bytes"], "the KV cache is copied, not updated in place"
    assert report["temporary_bytes"] < 256 * 2**20


@pytest.mark.slow
def test_a_step_with_images_over_a_v5e_slice():
    report = compile_step("qwen3_vl", "v5e:2x4", 8, 64, 4096)
    assert report["aliased_bytes"] >= report["cache_bytes"], "the KV cache is copied, not updated in place"
    assert report["temporary_bytes"] < 64 * 2**20
    assert report["argument_bytes"] + report["temporary_bytes"] < 16 * GIB, "does not fit a v5e chip"
