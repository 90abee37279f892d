"""Each gate of `make check` is proved by planting one failure in a copy of the tree and seeing the gate refuse it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
IGNORED = shutil.ignore_patterns("__pycache__", "_bundled")


def need(tool: str) -> None:
    if shutil.which("make") is None or not (BIN / tool).exists():
        pytest.skip(f"make or {tool} is not installed (extra 'dev')")


def run_gate(tree: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Run one target of the real Makefile in `tree`, with this environment's tools and no set-up."""
    command = ["make", "--no-print-directory", target, "SETUP=true", f"BIN={BIN}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=tree, env=env, text=True, capture_output=True, timeout=120, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package small enough to check in a moment, under the project's own settings."""
    for name in ("Makefile", "pyproject.toml", "tpu_setup.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in (".ci", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    package = tmp_path / "jaxserve"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package to check."""\n')
    shutil.copy(ROOT / "jaxserve" / "errors.py", package)
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "__init__.py", tmp_path / "benchmarks")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "tool", "path", "planted"),
    [
        ("check-format", "ruff", "jaxserve/planted.py", "x = {  'a':1 }\n"),
        ("check-lint", "ruff", "jaxserve/planted.py", '"""Planted."""\n\nimport os\n'),
        ("check-lint", "ruff", "jaxserve/planted.py", '"""Planted."""\n\n\ndef public() -> None:\n    print(1)\n'),
        ("check-types", "mypy", "jaxserve/planted.py", '"""Planted."""\n\nx: int = "no"\n'),
        ("check-types", "mypy", "jaxserve/planted.py", '"""Planted."""\n\n\ndef f(x):\n    return x\n'),
        ("check-shell", "shellcheck", "scripts/planted.sh", "#!/usr/bin/env bash\nrm $1\n"),
    ],
    ids=["format", "unused-import", "undocumented", "wrong-type", "untyped", "unquoted"],
)
def test_gate_refuses_a_planted_failure(tree: Path, target: str, tool: str, path: str, planted: str) -> None:
    need(tool)
    before = run_gate(tree, target)
    assert before.returncode == 0, before.stdout + before.stderr
    (tree / path).write_text(planted)
    after = run_gate(tree, target)
    assert after.returncode != 0
    assert path in after.stdout + after.stderr


PLANTED_IMPORTS = {
    "dependencies run one way; models, sampling and text never import each other": [
        ("models.planted", "jaxserve.sampling.params"),
        ("sampling.planted", "jaxserve.models"),
        ("text.planted", "jaxserve.engine.requests"),
        ("engine.planted", "jaxserve.api"),
        ("errors", "jaxserve.config"),
    ],
    "scheduler and pages hold no arrays": [("engine.scheduler", "numpy"), ("engine.pages", "jaxserve.engine.step")],
    "api sees no arrays": [("api.planted", "jax")],
    "sampling sees arrays only": [("sampling.planted", "jaxserve.config")],
    "the engine uses text for tokens, stop strings and grammars only": [("engine.planted", "jaxserve.text.chat")],
}


def test_import_contracts_refuse_planted_imports(tmp_path: Path) -> None:
    need("lint-imports")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "jaxserve", tmp_path / "jaxserve", ignore=IGNORED)
    before = run_gate(tmp_path, "check-imports")
    assert before.returncode == 0, before.stdout
    for imports in PLANTED_IMPORTS.values():
        for module, imported in imports:
            with (tmp_path / "jaxserve" / f"{module.replace('.', '/')}.py").open("a") as file:
                file.write(f"\nimport {imported}\n")
    after = run_gate(tmp_path, "check-imports")
    assert after.returncode != 0
    report = " ".join(after.stdout.split())
    for contract, imports in PLANTED_IMPORTS.items():
        assert f"{contract} BROKEN" in report
        for module, imported in imports:
            assert f"jaxserve.{module} -> {imported} " in report


def test_check_runs_every_gate() -> None:
    need("ruff")
    planned = subprocess.run(["make", "-n", "check"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    for tool in ('ruff" format --check', 'ruff" check', 'mypy"', 'lint-imports"', 'shellcheck"'):
        assert tool in planned
