"""`python -m benchmarks.aot`: compiles the matrix, one program after the other; what is done is not done again.

    python -m benchmarks.aot [--only TEXT ...] [--layers N] [--again] [--list]

Each row goes to benchmarks/results/aot.json as soon as it is there; scripts/make_aot_table.py makes docs/aot.md of it.
With `--print` rows go to the standard output instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.aot.matrix import Program, programs
from jaxserve.ahead import compiler

RESULTS = Path(__file__).parent.parent / "results" / "aot.json"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.aot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], help="programs whose name has one of these texts")
    parser.add_argument("--layers", type=int, help="the first layers only (default: all)")
    parser.add_argument("--again", action="store_true", help="also those that are in the result file")
    parser.add_argument("--print", action="store_true", help="print rows, write nothing")
    parser.add_argument("--list", action="store_true", help="print the names of the programs, compile nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    chosen = [one for one in programs() if any(text in one.name for text in args.only)]
    if args.list:
        print("\n".join(one.name for one in chosen))
        return
    compiler.prepare()
    rows = {} if args.print or not args.results.exists() else json.loads(args.results.read_text())
    for name, row in _measured(chosen, args, {} if args.again else rows):
        rows[name] = row
        if args.print:
            print(json.dumps(row), flush=True)
        else:
            args.results.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")


def _measured(
    chosen: list[Program], args: argparse.Namespace, done: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    from benchmarks.aot.measuring import measure

    for one in chosen:
        if "error" in done.get(one.name, {"error": ""}):
            try:
                row = measure(one, args.layers)
            except Exception as error:  # noqa: BLE001  # what XLA can't compile is a finding, not the end
                row = {"program": one.name, "error": f"{type(error).__name__}: {str(error)[:300]}"}
            print(f"{one.name}: {row.get('cpu_seconds', row.get('error'))}", file=sys.stderr, flush=True)
            yield one.name, row


if __name__ == "__main__":
    main()
