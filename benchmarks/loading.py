"""`python -m benchmarks.loading`: peak host memory and time of loading and converting a random model, case by case.

Every case is a process of its own that reads its `/proc/self/status` every 5 ms while it works. Two peaks count:
`anonymous` is memory that the process owns (RssAnon), `resident` adds the pages of mapped files (VmHWM), which the
kernel takes back when it needs them. Both are given without what the process had before it began (Python, jax), and
as a ratio to the parameters: 1.00 would be parameters and nothing else. Converting has no parameters to keep: its
ratio says how much of the model was in memory at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import checkpoint

WIDE = {"hidden": 2048, "heads": 16, "kv_heads": 4, "ff": 8192, "vocab": 32000}
SHAPES = {
    "bfloat16": checkpoint.Shape("1B", layers=15, **WIDE),
    "float32": checkpoint.Shape("0.5B", layers=7, **WIDE),
}
"""Models of 2 GB, by the type they are stored in."""


@dataclass(frozen=True)
class Case:
    """What one process does."""

    action: str
    """'load' or 'convert'."""
    layout: str
    """Where from: 'hub' (safetensors) or 'orbax'."""
    stored: str
    dtype: str
    """Type in memory, or written."""
    devices: int = 1
    layer_loop: str = "unroll"


def cases(stored: str) -> list[Case]:
    """The conversion first: it makes what the others load."""
    found = [Case("convert", "hub", stored, stored)]
    for layout in ("hub", "orbax"):
        for devices in (1, 8):
            found += [Case("load", layout, stored, stored, devices, loop) for loop in ("unroll", "scan")]
    if stored == "bfloat16":
        found += [Case("load", layout, stored, "float32") for layout in ("hub", "orbax")]
        found += [Case("convert", "hub", stored, "float32")]
    return found


class Peak:
    """Watches this process: a context manager."""

    def __enter__(self) -> Peak:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        self.before = _status()
        self.anonymous = self.before["RssAnon"]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self._stop.set()
        self._thread.join()
        self.anonymous -= self.before["RssAnon"]
        self.resident = _status()["VmHWM"] - self.before["VmRSS"]

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.anonymous = max(self.anonymous, _status()["RssAnon"])


def _status() -> dict[str, int]:
    """Bytes of each kind of memory."""
    text = Path("/proc/self/status").read_text()
    return {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(\w+):\s+(\d+) kB", text)}


def run_case(case: Case, source: Path, target: Path) -> dict[str, Any]:
    """Do it in this process."""
    import jax

    from jaxserve import models
    from jaxserve.models.conversion import convert

    jax.devices()
    config = models.load_config(source)
    if case.action == "convert":
        with Peak() as peak:
            convert(source, target, dtype=case.dtype)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    else:
        mesh = models.make_mesh(models.derive_mesh_shape(config, case.devices))
        with Peak() as peak:
            model = models.load_model(source, mesh=mesh, dtype=case.dtype, layer_loop=case.layer_loop)  # type: ignore[arg-type]
            jax.block_until_ready(model.leaves)
        size = sum(leaf.nbytes for leaf in model.leaves)
    return {
        **asdict(case),
        "parameter_bytes": size,
        "anonymous_bytes": peak.anonymous,
        "resident_bytes": peak.resident,
        "anonymous": round(peak.anonymous / size, 3),
        "resident": round(peak.resident / size, 3),
        "seconds": round(peak.seconds, 1),
    }


def measure(case: Case, source: Path, target: Path) -> dict[str, Any]:
    """Do it in another process."""
    flags = f"--xla_force_host_platform_device_count={case.devices}"
    command = [sys.executable, "-m", "benchmarks.loading", "--case", json.dumps(asdict(case)), str(source), str(target)]
    done = subprocess.run(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-2000:]}")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def measure_all(directory: Path) -> list[dict[str, Any]]:
    """Every case on models made in `directory`, one stored type after the other; prints as it goes."""
    records = []
    print(f"{'case':42} {'parameters':>10} {'anonymous':>10} {'resident':>10} {'seconds':>8}")
    for stored, shape in SHAPES.items():
        hub, orbax, other = (directory / f"{stored}-{name}" for name in ("hub", "orbax", "other"))
        checkpoint.write(shape, hub, dtype=stored)
        for case in cases(stored):
            target = orbax if case.dtype == stored else other
            record = measure(case, orbax if case.layout == "orbax" else hub, target)
            shutil.rmtree(other, ignore_errors=True)
            records.append(record)
            show(record)
        for path in (hub, orbax):
            shutil.rmtree(path)
    return records


def show(record: dict[str, Any]) -> None:
    """One line."""
    where = f"{record['devices']} device{'s' if record['devices'] > 1 else ''} {record['layer_loop']}"
    types = f"{record['stored']} -> {record['dtype']}" if record["stored"] != record["dtype"] else record["stored"]
    case = f"{record['action']} {record['layout']} {types}" + (f", {where}" if record["action"] == "load" else "")
    size = f"{record['parameter_bytes'] / 1e9:8.2f}GB"
    print(
        f"{case:42} {size:>10} {record['anonymous']:10.2f} {record['resident']:10.2f} {record['seconds']:8.1f}",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.loading", description="Peak host memory while loading.")
    parser.add_argument("--directory", type=Path, help="for 6 GB of temporary files (default: the system's)")
    parser.add_argument("--json", type=Path, help="also write the records there")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        case, source, target = options.case
        print(json.dumps(run_case(Case(**json.loads(case)), Path(source), Path(target))))
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        records = measure_all(Path(directory))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
