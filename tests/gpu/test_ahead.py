"""What XLA makes of a step for an H100, on a machine without one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.hlo import Program

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
MIB = 2**20

with_plugin = pytest.mark.skipif(
    not any(map(importlib.util.find_spec, PLUGINS)), reason="jax's CUDA plugin is not installed"
)


def ahead(*options: str, attention: str = "mosaic", matmul: str = "mosaic") -> dict:
    kernels = ["--attention", attention, "--matmul", matmul]
    command = [sys.executable, "-m", "benchmarks.gpu.ahead", *kernels, *options]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


slow = pytest.mark.slow


@with_plugin
@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("llama-3.1-8b", 12),
        pytest.param("qwen3-8b", 14, marks=slow),
        pytest.param("gpt-oss-20b", 27, marks=slow),
        pytest.param("qwen3-30b-a3b", 24, marks=slow),
    ],
)
def test_a_decode_step_is_free_of_the_host(model, most):
    """`most`: kernels of a layer, by what two more layers add."""
    fewer, report = (ahead("--models", model, "--tokens", "8", "--layers", layers) for layers in ("2", "4"))
    assert report["kernels"] - fewer["kernels"] <= 2 * most
    assert report["unknown_loops"] == 0
    assert report["conditionals"] == 0
    assert report["aliased_bytes"] >= report["cache_bytes"], "the KV cache is copied, not updated in place"
    assert report["temporary_bytes"] < 200 * MIB
    assert report["bytes_by_xla"] < 1.2 * report["needed_weight_bytes"]


@with_plugin
def test_plain_attention_decodes_free_of_the_host():
    report = ahead("--models", "llama-3.1-8b", "--layers", "1", "--context", "1024", attention="blocked", matmul="xla")
    assert report["unknown_loops"] == 0


@slow
@with_plugin
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-20b", "qwen3-30b-a3b"])
def test_prefill_is_free_of_the_host(model):
    report = ahead("--models", model, "--tokens", "2048")
    assert report["unknown_loops"] == 0
    assert report["temporary_bytes"] < 200 * MIB


HLO = """
%slow.1 (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %neg.1 = f32[8]{0} negate(%a)
}

%body.1 (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]{0}) parameter(0)
  %c = s32[] get-tuple-element(%b), index=0
  %d = f32[8]{0} get-tuple-element(%b), index=1
  %e = f32[8]{0} fusion(%d), kind=kLoop, calls=%slow.1
  ROOT %f = (s32[], f32[8]{0}) tuple(%c, %e)
}

%pick.1 (table: f32[1000,8], at: s32[2]) -> f32[2,8] {
  %table = f32[1000,8]{1,0} parameter(0)
  %at = s32[2]{0} parameter(1)
  ROOT %rows = f32[2,8]{1,0} gather(%table, %at), offset_dims={1}
}

ENTRY %main (p: (s32[], f32[8]), t: f32[1000,8], i: s32[2]) -> f32[2,8] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %t = f32[1000,8]{1,0} parameter(1)
  %i = s32[2]{0} parameter(2)
  %w = (s32[], f32[8]{0}) while(%p), condition=%cond.1, body=%body.1KNOWN
  %k = f32[8]{0} custom-call(%t), custom_call_target="mosaic_gpu_v2"
  ROOT %g = f32[2,8]{1,0} fusion(%t, %i), kind=kLoop, calls=%pick.1
}
"""


def test_the_reader_counts_what_kernels_of_dense_layers_read():
    plain = HLO.replace("KNOWN", "")
    dense = plain.replace('target="mosaic_gpu_v2"', 'target="mosaic_gpu_v2", metadata={op_name="jit(step)/mlp/map"}')
    assert Program(dense).report().bytes - Program(plain).report().bytes == 1000 * 8 * 4


@pytest.mark.parametrize(("known", "trips", "unknown"), [("", 1, 1), (', x={"known_trip_count":{"n":"5"}}', 5, 0)])
def test_the_reader_counts_kernels_loops_and_bytes(known, trips, unknown):
    """A gather reads the rows it takes; of a kernel of ours what it writes counts; a known loop runs to its end."""
    report = Program(HLO.replace("KNOWN", known)).report()
    assert report.unknown_loops == unknown
    assert report.kernels == trips + 2
    rows, index, vector = 2 * 8 * 4, 2 * 4, 8 * 4
    assert report.bytes == trips * 2 * vector + vector + rows + rows + index
    assert report.kinds == {"fusion": trips + 1, "mosaic_gpu_v2": 1}
