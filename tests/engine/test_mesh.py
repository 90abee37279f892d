"""Tensor parallelism over 8 (virtual) devices is a flag: the engine's greedy tokens are those of one device."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SCRIPT = """
import json
from jaxserve import LLM, SamplingParams

PROMPTS = ["Once upon a time", "The dog and the cat went to the river. " * 4, "One day"]

def run(**more):
    with LLM(max_num_seqs=4, max_model_len=256, token_buckets=(4, 32), kv_memory=32 << 20, **more) as llm:
        done = llm.generate(PROMPTS, SamplingParams(temperature=0), max_tokens=24, logprobs=1)
        return {
            "mesh": llm.config.mesh_shape,
            "tokens": [c.token_ids for c in done],
            "logprobs": [[entry.logprob for entry in c.logprobs] for c in done],
        }

print(json.dumps({"one": run(), "eight": run(mesh=8)}))
"""


def test_eight_devices_give_the_tokens_of_one():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=280, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    one, eight = report["one"], report["eight"]
    assert eight["mesh"] == [2, 2, 2]
    assert eight["tokens"] == one["tokens"]
    for ours, theirs in zip(eight["logprobs"], one["logprobs"], strict=True):
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-3
