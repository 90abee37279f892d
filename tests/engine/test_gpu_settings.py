"""Flags and memory for GPUs: set before jax looks for devices, and never against the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jaxserve.engine import gpu


@pytest.fixture
def environment(monkeypatch):
    """A machine with a CUDA plugin and nothing set."""
    for name in ("XLA_FLAGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(gpu, "find_spec", lambda name: name == "jax_cuda13_plugin")
    return monkeypatch


def test_nothing_is_set_where_there_can_be_no_gpu(environment):
    environment.setenv("JAX_PLATFORMS", "cpu")
    gpu.prepare(0.5)
    assert "XLA_FLAGS" not in os.environ
    environment.delenv("JAX_PLATFORMS")
    environment.setattr(gpu, "find_spec", lambda name: None)
    gpu.prepare(0.5)
    assert "XLA_FLAGS" not in os.environ


def test_loops_and_branches_join_cuda_graphs(environment):
    gpu.prepare()
    assert "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL" in os.environ["XLA_FLAGS"].split()
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == str(gpu.DEVICE_MEMORY)
    assert "WHILE" in gpu.describe()


def test_the_environment_stands(environment):
    environment.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer= --xla_dump_to=here")
    environment.setenv("XLA_CLIENT_MEM_FRACTION", "0.3")
    gpu.prepare()
    assert os.environ["XLA_FLAGS"].count("command_buffer") == 1
    assert os.environ["XLA_FLAGS"].startswith("--xla_gpu_enable_command_buffer= --xla_dump_to=here ")
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ


def test_a_share_that_was_asked_for_goes_first(environment):
    environment.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.3")
    gpu.prepare(0.6)
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.6"


def test_this_jaxlib_knows_the_flags(environment):
    """An unknown flag ends the process."""
    gpu.prepare()
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
