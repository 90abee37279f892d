"""Programs of every family for TPUs that are elsewhere: the matrix, its bounds, its table and some of its programs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.aot.bounds import beyond
from benchmarks.aot.matrix import CHIPS, programs
from benchmarks.aot.shapes import SHAPES, model_config
from jaxserve.models.registry import supported_model_types

ROOT = Path(__file__).resolve().parents[2]
ROWS = json.loads((ROOT / "benchmarks" / "results" / "aot.json").read_text())
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def compiled(*names):
    command = [sys.executable, "-m", "benchmarks.aot", "--print", "--only", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_family_is_in_the_matrix_on_every_chip():
    found = {(model_config(one.model).model_type, one.topology.split(":")[0]) for one in programs()}
    assert found == {(kind, chip) for kind in supported_model_types() for chip in CHIPS}
    assert {one.model for one in programs()} == set(SHAPES)


def test_the_table_is_current():
    script = [sys.executable, str(ROOT / "scripts" / "make_aot_table.py"), "--check"]
    assert subprocess.run(script, check=False).returncode == 0, "run scripts/make_aot_table.py"


@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_was_measured_keeps_its_bounds(name):
    assert list(beyond(ROWS[name])) == []


def test_bounds_notice_what_is_too_much():
    row = json.loads(json.dumps(ROWS["llama-3.1-8b@v6e/decode64"]))
    row["in_place"] = False
    row["temporary_mb"] = 1200.0
    row["copies"] = [{"result": "bf16[201088,2880]", "times": 1.0, "mb": 1158.3, "source": "leaves[0]"}]
    row["steps"][0]["bytes_ratio"] = 1.4
    words = ("cache is copied", "1200.0 MB of temporaries", "a copy of 1158.3 MB", "1.4 times the bytes")
    for part, sentence in zip(words, beyond(row), strict=True):
        assert part in sentence


@needs_libtpu
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tables_and_experts_stay_where_they_are():
    """GPT-OSS on one chip: rows of 2,880 numbers, MXFP4, sinks, windows, heads of 64."""
    (row,) = compiled("gpt-oss-20b@v6e/decode64")
    assert list(beyond(row)) == []
    assert row["kernels"] == {"write_kv_pages": 24.0, "paged_attention": 24.0, "grouped_product": 72.0}
    assert row["collectives"] == []


_OF_ALL = [one.name for one in programs() if one.tokens == 64]


@needs_libtpu
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _OF_ALL)
def test_every_program_of_a_decoding_step(name):
    (row,) = compiled(name)
    assert list(beyond(row)) == []
