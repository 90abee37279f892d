"""Result file and table of a benchmark run."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.checkpoint import Shape
from benchmarks.rounds import Limits, Speed, Workload

GIGA = 1e9


def machine() -> dict[str, Any]:
    """What a reader needs to know of this machine."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists() and (match := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        cpu = match.group(1)
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def revision() -> str:
    """The checkout's commit, with a plus sign if files have changed since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=Path(__file__).parent,
        text=True,
        capture_output=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def header(work: Workload, limits: Limits, bandwidth: dict[str, float]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "machine": machine(),
        "limits": asdict(limits),
        "workload": asdict(work),
        "bandwidth": bandwidth,
        "models": [],
    }


def model_entry(
    shape: Shape,
    header: dict[str, Any],
    speeds: dict[tuple[str, int], dict[str, Speed]],
    agree: dict[str, bool],
    versions: dict[str, dict[str, str]],
) -> dict[str, Any]:
    """Everything measured on one model, with ratios to jaxserve and the share of the memory's speed used.

    Args:
        shape: the model.
        header: of the run, see `header`.
        speeds: by contender and number of sequences.
        agree: see `rounds.agreement`.
        versions: of each contender's libraries.
    """
    context = header["workload"]["prompt"] + header["workload"]["new"] // 2
    itemsize = 4 if header["limits"]["device"] == "cpu" else 2
    rows = []
    for (name, sequences), kinds in speeds.items():
        base = speeds.get(("jaxserve", sequences))
        steps_per_second = kinds["decode"].median / sequences
        used = steps_per_second * shape.decode_bytes(sequences, context, itemsize)
        row: dict[str, Any] = {"contender": name, "sequences": sequences}
        for kind, speed in kinds.items():
            row[kind] = asdict(speed)
            if base is not None:
                row[f"{kind}_jaxserve_ratio"] = base[kind].median / speed.median
        row["bandwidth_share"] = used / header["bandwidth"]["read"]
        rows.append(row)
    return {"model": shape.name, "parameters": shape.parameters, "versions": versions, "agrees": agree, "rows": rows}


def save(result: dict[str, Any], directory: Path) -> Path:
    """Writes the result file; its name is the time."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = re.sub(r"[^0-9T]", "", result["date"].partition("+")[0])
    path = directory / f"{stamp}-{result['limits']['device']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def show(result: dict[str, Any]) -> None:
    """Prints one table per model: medians (lowest to highest), jaxserve's speed over the contender's, and the share of
    the memory's reading speed that decoding uses.
    """
    console = Console()
    console.width = max(console.width, 116)
    work = result["workload"]
    speed = " ".join(f"{kind} {value / GIGA:.1f} GB/s" for kind, value in result["bandwidth"].items())
    console.print(f"{result['machine']['cpu']}, {result['limits']['threads']} threads, memory: {speed}")
    for entry in result["models"]:
        title = (
            f"{entry['model']} parameters, prompt {work['prompt']}, {work['new']} new tokens, {work['rounds']} rounds"
        )
        table = Table("engine", "sequences", title=title)
        for column in ("prefill tok/s", "decode tok/s", "ratio prefill", "ratio decode", "bandwidth"):
            table.add_column(column, justify="right")
        for row in sorted(entry["rows"], key=lambda row: row["sequences"]):
            table.add_row(*_cells(row, entry["agrees"]))
        console.print(table)


def _cells(row: dict[str, Any], agrees: dict[str, bool]) -> list[str]:
    name = row["contender"] + ("" if agrees.get(row["contender"], True) else " (other tokens!)")
    return [
        name,
        str(row["sequences"]),
        *(
            f"{row[kind]['median']:,.0f} ({row[kind]['low']:,.0f}-{row[kind]['high']:,.0f})"
            for kind in ("prefill", "decode")
        ),
        *(f"{row[key]:.2f}" if (key := f"{kind}_jaxserve_ratio") in row else "" for kind in ("prefill", "decode")),
        f"{row['bandwidth_share']:.0%}",
    ]
