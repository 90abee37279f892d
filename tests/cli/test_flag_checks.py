"""Wrong flags are told before jax is imported, which takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from jaxserve.models.kernels.choice import ATTENTION, MATMUL
from jaxserve.options import EngineOptions, declared
from jaxserve.resolve import bundled_model_dir

STORY = str(bundled_model_dir())
GROUP = ("--coordinator", "127.0.0.1:9", "--num-hosts", "2", "--host-id", "0")
WRONG = {
    "an option that isn't one": (["serve", "story", "--chat-formatt", "x"], "chat-formatt"),
    "port": (["serve", "story", "--port", "99999"], "--port"),
    "attention": (["serve", "story", "--attention", "nonsense"], "--attention"),
    "quantize": (["serve", "story", "--quantize", "int3"], "--quantize"),
    "chat format": (["serve", "story", "--chat-format", "nonsense"], "no chat format 'nonsense'"),
    "chat template": (["serve", "story", "--chat-template", "/missing"], "/missing"),
    "context": (["serve", "story", "--max-model-len", "99999"], "--max-model-len"),
    "mesh": (["serve", "story", "--mesh", "kv=2,group=2"], "--mesh asks for 4 devices, this machine has 2"),
    "device memory": (["serve", "story", "--device-memory", "0.5"], "--device-memory"),
    "sizes": (["serve", "story", "--max-num-seqs", "64", "--max-num-batched-tokens", "32"], "--max-num-seqs"),
    "key file": (["serve", "story", "--api-key-file", "/missing"], "/missing"),
    "model": (["serve", "/missing"], "/missing"),
    "generate": (["generate", "story", "--max-model-len", "99999"], "--max-model-len"),
    "topology": (["plan", STORY, "--topology", "v99"], "--topology"),
    "context there": (["plan", STORY, "--topology", "v6e", "--max-model-len", "99999"], "--max-model-len"),
    "topology to compile for": (["compile", STORY, "/missing/out", "--topology", "v99"], "--topology"),
    "a group that stays": (
        ["serve", "story", *GROUP, "--host-secret-file", __file__, "--on-engine-death", "stay"],
        "--on-engine-death stay is for one host",
    ),
    "help": (["--help"], "Usage"),
    "help of serve": (["serve", "--help"], "--chat-format"),
    "help of plan": (["plan", "--help"], "--topology"),
}
"""Arguments, and what stands in the answer."""
RUN = """
import json, sys
from typer.testing import CliRunner
from jaxserve.cli import app
found = {}
for name, arguments in json.load(sys.stdin).items():
    answer = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    heavy = [module for module in ("jax", "flax", "fastapi") if module in sys.modules]
    found[name] = [answer.exit_code, answer.output, heavy]
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers() -> Any:
    """Exit code, output and imported modules by name, all from one process."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    arguments = json.dumps({name: case[0] for name, case in WRONG.items()})
    told = subprocess.run(
        [sys.executable, "-c", RUN], input=arguments, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(told.stdout)


@pytest.mark.parametrize("name", WRONG)
def test_it_is_told_without_jax(answers, name):
    code, output, heavy = answers[name]
    assert code == (0 if name.startswith("help") else 2)
    assert WRONG[name][1] in output
    assert heavy == []


def test_the_names_of_kernels_are_declared():
    """The options know them without importing the tables."""
    choices = {each.name: each.choices for each in declared(EngineOptions)}
    assert set(choices["attention"]) == set(ATTENTION)
    assert set(choices["matmul"]) == set(MATMUL)
