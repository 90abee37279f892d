"""The script for TPU machines: what it refuses, what it would do, and what it leaves in the system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jaxserve.cli.parameters import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
HAS_TPU = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
without_tpu = pytest.mark.skipif(HAS_TPU, reason="this machine has a TPU")


def fake(directory: Path, name: str, text: str = 'echo "$0" "$@" >>"${0%/*}/calls"') -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = ["./tpu_setup.sh", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAXSERVE_", "TPU_NAME"))}
    return subprocess.run(command, cwd=ROOT, env=kept | env, text=True, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "eighty"], "PORT must be a number, got 'eighty'"),
        (["/nowhere/model"], "MODEL '/nowhere/model' does not exist"),
        (["story", "8000", "--max-num-sequences", "4"], "'jaxserve serve' has no flag '--max-num-sequences'"),
        (["story", "8000", "extra"], "'jaxserve serve' has no flag 'extra'"),
        (["story", "--port", "1"], "the port is the second argument"),
        (["story", "--dtype"], "--dtype needs a value"),
        (["story", "--systemd"], "--systemd stands before MODEL"),
        (["story", "--no-max-num-seqs"], "has no flag '--no-max-num-seqs'"),
        (["--worker=1"], "the only choice is --worker=all"),
        (["--worker=all", "story"], "--worker=all needs TPU_NAME and ZONE"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_done(tmp_path, arguments, message):
    result = run(*arguments, VENV=str(tmp_path / "venv"))
    assert result.returncode == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


@without_tpu
@pytest.mark.parametrize("arguments", [[], ["--systemd"], ["--dry-run"], ["--no-start", "story"]])
def test_the_cpu_serves_only_where_it_may(tmp_path, arguments):
    result = run(*arguments, VENV=str(tmp_path / "venv"))
    assert result.returncode == 2
    assert "--allow-cpu serves on the CPU" in result.stderr
    assert not (tmp_path / "venv").exists()


@without_tpu
@pytest.mark.parametrize("model", ["gs://bucket/model", "org/name", "story", ""])
def test_a_dry_run_shows_the_commands_and_does_none(tmp_path, model):
    result = run("--dry-run", "--allow-cpu", model, "8001", "--lenient", "--mesh=4", VENV=str(tmp_path / "venv"))
    assert result.returncode == 0, result.stderr
    served = f"serve {model} --port" if model else "serve --port"
    assert result.stdout.splitlines() == [
        "+ scripts/venv.sh",
        f"+ env JAX_PLATFORMS=cpu {tmp_path}/venv/bin/jaxserve {served} 8001 --lenient --mesh=4",
    ]
    assert list(tmp_path.iterdir()) == []


def test_every_flag_of_serve_is_known(tmp_path):
    flags: list[str] = []
    for each in OPTIONS:
        if "serve" in each.option.commands and not each.option.positional and each.name != "port":
            flags += [each.flag] if each.kind is bool else [each.flag, "1"]
            flags += [f"--no-{each.flag[2:]}"] if each.kind is bool else []
    result = run("--dry-run", "--allow-cpu", "story", "1", *flags, "--config", "f", VENV=str(tmp_path / "venv"))
    assert result.returncode == 0, result.stderr


def test_help_names_every_option():
    script = (ROOT / "tpu_setup.sh").read_text()
    parsed = set(re.findall(r"^      (--[a-z=-]+)[ |)]", script, re.MULTILINE)) - {"--port"}
    told = run("--help").stdout
    assert {"--dry-run", "--systemd", "--uninstall", "--allow-cpu", "--worker=all", "--no-start"} <= parsed
    assert all(flag in told for flag in parsed | {"MODEL", "PORT"})


@pytest.fixture
def system(tmp_path: Path) -> dict[str, str]:
    """An environment that is installed already, a place for units, and a systemctl that notes what it is asked."""
    (tmp_path / "bin").mkdir()
    fake(tmp_path / "bin", "systemctl")
    shutil.copytree(ROOT / "scripts", tmp_path / "unused")
    return {
        "SYSTEMD_DIR": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "VENV": str(tmp_path / "v"),
    }


@without_tpu
def test_the_unit_is_what_systemd_takes(system, tmp_path):
    result = run("--dry-run", "--allow-cpu", "--systemd", "org/name", "8001", "--api-key", 'a b"%h$HOME', **system)
    assert result.returncode == 0, result.stderr
    shown = [line[2:] for line in result.stdout.splitlines() if line.startswith("| ")]
    assert not (tmp_path / "jaxserve.service").exists()
    told = dict(line.split("=", 1) for line in shown if "=" in line)
    assert told["ExecStart"] == (
        f'"{tmp_path}/v/bin/jaxserve" "serve" "org/name" "--port" "8001" "--api-key" "a b\\"%%h$$HOME"'
    )
    assert told["Restart"] == "on-failure"
    assert told["RestartPreventExitStatus"] == "2"
    assert told["StandardError"] == "journal"
    assert int(told["LimitNOFILE"]) > 4096
    assert int(told["TimeoutStopSec"]) > 30, "longer than running requests get"
    verifier = shutil.which("systemd-analyze")
    if verifier is not None:
        unit = tmp_path / "jaxserve.service"
        (tmp_path / "v" / "bin").mkdir(parents=True)
        fake(tmp_path / "v" / "bin", "jaxserve")
        unit.write_text("\n".join(shown).replace(f"WorkingDirectory={ROOT}", f"WorkingDirectory={tmp_path}") + "\n")
        checked = subprocess.run([verifier, "verify", unit], text=True, capture_output=True, timeout=60, check=False)
        assert "jaxserve.service" not in checked.stderr, checked.stderr


def test_uninstall_removes_the_service_and_the_environment(system, tmp_path):
    (tmp_path / "jaxserve.service").write_text("[Service]\n")
    (tmp_path / "v").mkdir()
    assert run("--uninstall", "--dry-run", **system).returncode == 0
    assert (tmp_path / "jaxserve.service").exists()
    if os.getuid() != 0:
        pytest.skip("the rest needs root")
    result = run("--uninstall", **system)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "jaxserve.service").exists()
    assert not (tmp_path / "v").exists()
    assert "disable --now jaxserve.service" in (tmp_path / "bin" / "calls").read_text()
    assert run("--uninstall", **system).returncode == 0, "again, with nothing left"


def test_a_pod_does_the_same_on_every_worker(tmp_path):
    arguments = ("--worker=all", "--systemd", "org/name", "8000", "--max-model-len", "4096")
    shown = run("--dry-run", *arguments, TPU_NAME="pod", ZONE="z").stdout.splitlines()
    assert len([line for line in shown if line.startswith("+ gcloud compute tpus tpu-vm")]) == 4
    assert all(line.endswith("--zone=z --worker=all") for line in shown if "gcloud" in line)
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    fake(bin_directory, "gcloud")
    done = run(*arguments, TPU_NAME="pod", ZONE="z", PATH=f"{bin_directory}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    *_, last = (bin_directory / "calls").read_text().splitlines()
    assert "./tpu_setup.sh --systemd org/name 8000 --max-model-len 4096" in last
    assert "JAXSERVE_HOST_SECRET_FILE=$PWD/.host_secret" in last
