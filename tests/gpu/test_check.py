"""The device check runs whole on any device, as small as it gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_tiny(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--tiny", "--json", str(tmp_path / "found.json")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["device"]["platform"] == "cpu"
    assert found["ceilings"]["copy"] > 0
    assert all(case["ok"] for cases in found["attention"].values() for case in cases.values())
    assert found["families"]
    assert all(family["ok"] for family in found["families"].values())
    (steps,) = found["steps"].values()
    assert {"decode 1 x 40", "decode 3 x 40", "prefill 96"} < set(steps)
    assert all(result["share"] > 0 for name, result in steps.items() if name != "layers")
