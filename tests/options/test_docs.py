"""docs/configuration.md is what the declarations say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from jaxserve.options import BenchOptions, declared

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_is_current():
    spec = importlib.util.spec_from_file_location("make_options_table", ROOT / "scripts" / "make_options_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.OUTPUT.read_text() == module.render(), "run scripts/make_options_table.py"


@pytest.mark.parametrize("each", list(declared(BenchOptions)), ids=lambda each: each.name)
def test_the_page_of_bench_names_every_flag(each):
    assert f"`{each.flag}" in (ROOT / "docs" / "bench.md").read_text()
