"""What the repository promises about itself."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, text=True, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


@pytest.mark.parametrize("room", ["models", "sampling", "api"])
def test_root_links_lead_into_the_package(room: str) -> None:
    assert (ROOT / room).readlink() == Path("jaxserve") / room


def test_no_merge_was_left_half_done() -> None:
    marks = [b"\n" + mark * 7 + b" " for mark in (b"<", b">")]
    files = [path for path in tracked() if path.is_file() and not path.is_symlink()]
    assert [path.name for path in files if any(mark in path.read_bytes() for mark in marks)] == []


def test_nothing_requires_torch() -> None:
    optional = PROJECT["optional-dependencies"]
    required = [*PROJECT["dependencies"], *optional["test"], *optional["dev"], *optional["tpu"], *optional["gpu"]]
    names = {re.match(r"[A-Za-z0-9_.-]+", line).group().lower() for line in required}  # type: ignore[union-attr]
    assert not names & {"torch", "transformers", "vllm"}


@cache
def imported() -> set[str]:
    """The top-level modules that the package imports anywhere."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "jaxserve").rglob("*.py"))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


distributions = cache(packages_distributions)

LOADED_BY_UVICORN = {"uvloop"}
"""Where it is installed, by itself."""


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_dependency_is_imported(requirement: str) -> None:
    name = re.match(r"[A-Za-z0-9_.-]+", requirement).group()  # type: ignore[union-attr]
    provided = {
        module for module, owners in distributions().items() if normal(name) in {normal(each) for each in owners}
    }
    assert provided & (imported() | LOADED_BY_UVICORN)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_file_names_a_package_registry_or_a_place_on_one_machine() -> None:
    forbidden = re.compile(rb"pypi\.(org|python)|pythonhosted|/ro{2}t/|/h[o]me/[a-z]|/w[o]rk/")
    found = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.is_file() and not path.is_symlink() and path != Path(__file__) and forbidden.search(path.read_bytes())
    ]
    assert found == []


def test_readme_starts_with_the_two_commands_and_a_request() -> None:
    text = (ROOT / "README.md").read_text()
    opening = text[: text.index("## Clients")]
    assert "make serve" in opening
    assert "make test" in opening
    assert "curl http://127.0.0.1:8000/v1/" in opening


def test_readme_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z][a-z-]+)", (ROOT / "README.md").read_text()))
    assert named <= targets
    assert named
