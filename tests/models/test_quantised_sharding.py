"""Quantised models on 8 virtual devices (in a process of its own): tensor and expert parallel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(model_fixtures):
    """What quantised_sharded_run.py measured."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    script = Path(__file__).parent / "quantised_sharded_run.py"
    done = subprocess.run(
        [sys.executable, str(script), str(model_fixtures)], env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_same_tokens_from_the_same_codes(runs):
    for name, run in runs.items():
        assert run["equal_parameters"], name
        assert run["error"] < 2e-4, (name, run)
        assert run["tokens"], name


def test_codes_are_split(runs):
    """A device's share; projections that the heads do not let split are whole on every device."""
    shares = {name: run["share"] for name, run in runs.items()}
    assert shares["experts"] < 0.4
    assert shares["four bits"] < 0.26
    assert shares["int8"] < 0.23
    assert shares["int8 experts"] < 0.2


def test_bytes_of_two_codes_are_not_cut(runs):
    """Width 64 is two blocks: experts are split 2 ways by number and 2 ways by width, and the rest is reported."""
    assert runs["four bits"]["mesh"] == [2, 2, 2]
    assert runs["four bits"]["report"] == ["experts are not split over mesh axes group: replicated"]
