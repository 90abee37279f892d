"""The scripts that set the environment up and run the gates, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, text=True, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("check", "test", "status"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (2, 2, 1)])
def test_ci_runs_both_gates_and_fails_if_either_does(tmp_path: Path, check: int, test: int, status: int) -> None:
    log = tmp_path / "log"
    lines = ["#!/bin/sh", f'echo "$@" >>"{log}"', "read -r line && exit 9", f"[ $1 = check ] && exit {check}"]
    executable(tmp_path / "make", "\n".join([*lines, f"exit {test}", ""]))
    result = run([str(ROOT / ".ci/run")], PATH=f"{tmp_path}:{os.environ['PATH']}", CI="true")
    assert result.returncode == status
    assert log.read_text().split() == ["check", "test"]


def test_set_up_says_when_there_is_no_python(tmp_path: Path) -> None:
    result = run(["scripts/venv.sh"], VENV=str(tmp_path / "venv"), PYTHON="/nowhere/python3")
    assert result.returncode == 2
    assert "No Python 3.11 or newer found at PYTHON=/nowhere/python3" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_set_up_says_when_python_cannot_make_environments(tmp_path: Path) -> None:
    fake = executable(
        tmp_path / "python3",
        f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n',
    )
    result = run(["scripts/venv.sh"], VENV=str(tmp_path / "venv"), PYTHON=str(fake))
    assert result.returncode == 2
    assert "has no ensurepip" in result.stderr
    assert f"python3.{sys.version_info.minor}-venv" in result.stderr
