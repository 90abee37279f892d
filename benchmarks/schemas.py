"""How much of published JSON Schema is enforced, and what compiling costs.

    python -m benchmarks.schemas DATA --tokenizer DIRECTORY [--sample N] [--json FILE] [--show KIND]

DATA is `maskbench/data` of the repository guidance-ai/jsonschemabench: files that hold a schema with valid and invalid
instances. Every schema is compiled as the schema of a `response_format`, within the limits of the server's workers, and
every instance is read by its grammar, without layout. Counted twice: with objects closed unless they say otherwise, as
the server has them, and with the open objects of plain JSON Schema. A schema passes when it compiles and its grammar
takes all valid instances and no invalid one. Counted apart are those whose instances only have their keys in another
order than the schema's, the one that grammars write, or keys which a closed object doesn't name; with them, schemas are
`enforced`. Times are processor times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks.schema_jury import Jury, Verdict

KINDS = ("passing", "other order", "fewer keys", "refused", "valid refused", "invalid accepted", "crash")


def fewer_keys(closed: dict[str, Verdict], opened: dict[str, Verdict]) -> None:
    """Names what fails because objects are closed, and passes where they are open."""
    for name, verdict in closed.items():
        if verdict.kind == "valid refused" and not set(verdict.refused) & set(opened[name].refused):
            verdict.kind = "fewer keys" if opened[name].kind != "refused" else verdict.kind


def percentile(seconds: list[float], share: float) -> float:
    """Milliseconds that a share of the grammars needs at most."""
    return 1000 * sorted(seconds)[min(int(len(seconds) * share), len(seconds) - 1)] if seconds else 0.0


def summary(verdicts: dict[str, Verdict]) -> dict[str, float]:
    """One column of the table."""
    counted = Counter(verdict.kind for verdict in verdicts.values())
    times = [verdict.seconds for verdict in verdicts.values() if verdict.kind not in ("refused", "crash")]
    column: dict[str, float] = {kind: counted[kind] for kind in KINDS}
    column["schemas"] = len(verdicts)
    column["passing, %"] = 100 * counted["passing"] / max(len(verdicts), 1)
    told = counted["passing"] + counted["other order"] + counted["fewer keys"]
    column["enforced, %"] = 100 * told / max(len(verdicts), 1)
    for share in (0.5, 0.9, 0.99, 1.0):
        column[f"compile p{share * 100:g}, ms"] = percentile(times, share)
    return column


def show(columns: dict[str, dict[str, float]]) -> None:
    """Prints the table."""
    print(f"{'':22}" + "".join(f"{name:>10}" for name in columns))
    for row in next(iter(columns.values())):
        cells = (
            f"{column[row]:>10.1f}" if row.endswith(("%", "ms")) else f"{column[row]:>10.0f}"
            for column in columns.values()
        )
        print(f"{row:22}" + "".join(cells))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.schemas", description=__doc__)
    parser.add_argument("data", type=Path, help="directory of the cases")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of a tokenizer's files")
    parser.add_argument("--sample", type=int, help="that many schemas, chosen by --seed (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objects", nargs="+", choices=("closed", "open"), default=["closed", "open"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where all verdicts go")
    parser.add_argument("--show", choices=KINDS, help="list these, with their reasons")
    return parser.parse_args()


def main() -> None:
    args = parse()
    names = sorted(path.name for path in args.data.glob("*.json"))
    if args.sample:
        names = sorted(random.Random(args.seed).sample(names, min(args.sample, len(names))))
    jury = Jury(args.data.resolve(), args.tokenizer.resolve(), args.threads)
    try:
        verdicts = {kind: jury.all(names, is_open=kind == "open") for kind in args.objects}
    finally:
        jury.close()
    if {"closed", "open"} <= set(verdicts):
        fewer_keys(verdicts["closed"], verdicts["open"])
    show({kind: summary(found) for kind, found in verdicts.items()})
    for kind, found in verdicts.items():
        for verdict in found.values():
            if verdict.kind == args.show:
                print(f"{kind} {verdict.name}: {verdict.why or verdict.refused + verdict.accepted}")
    if args.json:
        listed = {kind: [asdict(verdict) for verdict in each.values()] for kind, each in verdicts.items()}
        args.json.write_text(json.dumps(listed, indent=1))
        print(f"written: {args.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
