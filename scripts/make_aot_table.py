"""Writes the tables of docs/aot.md from benchmarks/results/aot.json. Usage: make_aot_table.py [--check]"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generated import main, table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.aot.bounds import TARGETS, beyond  # noqa: E402
from benchmarks.aot.matrix import Program, programs  # noqa: E402

OUTPUT, RESULTS = ROOT / "docs" / "aot.md", ROOT / "benchmarks" / "results" / "aot.json"
BEGIN, END = "<!-- made by scripts/make_aot_table.py -->", "<!-- end of what is made -->"
HEADER = (
    *("Model", "Chips", "Step", "Floor ms", "Bytes / needed", "Time / floor", "wished", "Temporaries MB"),
    *("Exchanges a step", "Compile CPU s", "Beyond its bounds"),
)


def rows(data: dict[str, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A line for each step of each program that was measured."""
    for program in programs():
        row = data.get(program.name)
        if row is None:
            continue
        findings = "; ".join(beyond(row))
        if "error" in row:
            yield (program.model, program.topology, f"{program.step} {program.tokens}", *("",) * 7, findings)
            continue
        for number, step in enumerate(row["steps"]):
            yield (*_step(program, row, step), *(_program(row, findings) if number == 0 else ("",) * 4))


def _step(program: Program, row: dict[str, Any], step: dict[str, Any]) -> tuple[str, ...]:
    name = f"{program.model} {program.quantize}" if program.quantize else program.model
    what = (
        f"{step['sequences']} x {step['context']:,}" if program.step == "decode" else f"{step['tokens']:,} of a prompt"
    )
    wished = TARGETS.get((program.model, program.topology.split(":")[0]))
    target = f"{wished}" if wished is not None and program.step == "decode" else ""
    at_least = ">= " if row["unknown_loops"] else ""
    return (
        name,
        program.topology,
        what,
        f"{step['floor_ms']:.1f}",
        f"{at_least}{step['bytes_ratio']:.2f}",
        f"{at_least}{step['time_ratio']:.2f}",
        target,
    )


def _program(row: dict[str, Any], findings: str) -> tuple[str, ...]:
    sums: dict[str, float] = {}
    for one in row["collectives"]:
        name = f"{one['kind']} {one['type']}"
        sums[name] = sums.get(name, 0.0) + one["mb"]
    exchanged = ", ".join(f"{name} {size:.0f} MB" for name, size in sums.items() if size >= 0.5)
    return f"{row['temporary_mb']:.0f}", exchanged, f"{row['cpu_seconds']:.0f}", findings


def tables(data: dict[str, dict[str, Any]]) -> str:
    """The generated part."""
    measured, count = sum("error" not in row for row in data.values()), sum(1 for _ in programs())
    said = f"{measured} of the {count} programs that `make aot` compiles; wished ratios are those of decoding."
    return f"{said}\n\n{table(HEADER, rows(data))}"


def render() -> str:
    """The whole document."""
    before, rest = OUTPUT.read_text().split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables(json.loads(RESULTS.read_text()))}\n{END}{after}"


if __name__ == "__main__":
    main(__doc__, OUTPUT, render)
