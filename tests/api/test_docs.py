"""docs/api.md is what the code says, and says something about everything."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table() -> Any:
    spec = importlib.util.spec_from_file_location("make_api_table", ROOT / "scripts" / "make_api_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_current(table: Any) -> None:
    assert table.OUTPUT.read_text() == table.render(), "run scripts/make_api_table.py"


def test_no_cell_is_empty(table: Any) -> None:
    for row in table.rows():
        assert all(cell.strip() for cell in row), row


def test_every_field_of_both_endpoints_has_its_row(table: Any) -> None:
    fields = {row[0].strip("`") for row in table.rows()}
    assert fields == set(ChatCompletionRequest.model_fields) | set(CompletionRequest.model_fields)
    assert len(table.rows()) == len(fields)


def test_every_proof_named_there_exists(table: Any) -> None:
    for row in table.rows():
        for proof in row[-1].split(", "):
            name, function = proof.strip("`").split(": ")
            assert f"def {function}(" in (ROOT / "tests" / "api" / name).read_text()
