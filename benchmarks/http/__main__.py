"""`python -m benchmarks.http FILE --llama-python PYTHON`: both servers on each form of a file, medians and ratios."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.http.forms import FORMS, write_form
from benchmarks.http.load import CASES, Case, measure
from benchmarks.http.servers import Server, both
from benchmarks.report import machine, revision

FEATURES = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.http", description=__doc__)
    parser.add_argument("file", type=Path, help="a GGUF file, such as SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--llama-python", default=sys.executable, help="a Python that has xllamacpp")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where the result goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    head = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "revision": revision(), "machine": machine()}
    result: dict[str, Any] = {**head, "features": _features(), "file": args.file.name, "forms": {}}
    console = Console(width=140)
    console.print(f"{result['machine']['cpu']}, {args.threads} threads, {' '.join(result['features'])}")
    with tempfile.TemporaryDirectory() as directory:
        for form in args.forms:
            path = write_form(args.file, form, Path(directory) / f"{args.file.stem}-{form}.gguf")
            with both(path, args.llama_python, args.threads) as servers:
                result["forms"][form] = _compared(servers, args.rounds)
            console.print(_table(form, result["forms"][form]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _features() -> list[str]:
    words = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    return [feature for feature in FEATURES if feature in words]


def _compared(servers: list[Server], rounds: int) -> dict[str, Any]:
    """Medians of each server's turns, which interleave; the first round warms up."""
    turns: dict[str, dict[str, list[dict[str, float]]]] = {server.name: {} for server in servers}
    for number in range(rounds + 1):
        for case in CASES:
            for server in servers[:: 1 if number % 2 else -1]:
                measured = measure(server, case, 1000 * number + case.clients)
                turns[server.name].setdefault(case.name, []).append(measured)
    return {
        server.name: {
            "ready, s": server.seconds,
            "resident, MB": server.resident(),
            **{case.name: _medians(turns[server.name][case.name][1:]) for case in CASES},
        }
        for server in servers
    }


def _medians(measured: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in measured) for name in measured[0]}


def _table(form: str, compared: dict[str, Any]) -> Table:
    table = Table("", *compared, "ratio", title=form)
    ours, theirs = compared.values()
    for name in ("ready, s", "resident, MB"):
        table.add_row(name, *_cells(ours[name], theirs[name]))
    for case in CASES:
        for name in _shown(case):
            table.add_row(f"{case.name}: {name}", *_cells(ours[case.name][name], theirs[case.name][name]))
    return table


def _shown(case: Case) -> list[str]:
    if case.new == 1:
        return ["prompt tokens/s"]
    return ["output tokens/s", "first token, ms", "between tokens p50, ms", "between tokens p99, ms"]


def _cells(ours: float, theirs: float) -> tuple[str, str, str]:
    return f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}"


if __name__ == "__main__":
    main()
