"""`python -m benchmarks`: runs the comparison, prints it and writes a result file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import checkpoint, report, rounds

RESULTS = Path(__file__).parent / "results"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=checkpoint.SHAPES, default=list(checkpoint.SHAPES))
    parser.add_argument("--only", nargs="+", choices=rounds.MODULES, help="contenders (default: all that import)")
    parser.add_argument("--sequences", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result file goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    work = rounds.Workload(tuple(args.sequences), args.prompt, args.new, args.rounds)
    limits = rounds.Limits(args.threads, args.device)
    names = rounds.available(os.environ.get("BENCH_PYTHON", sys.executable))
    if args.only:
        names = {name: python for name, python in names.items() if name in args.only}
    print("contenders: " + ", ".join(names), file=sys.stderr)
    bandwidth = _bandwidth(limits)
    result = report.header(work, limits, bandwidth)
    for model in args.models:
        shape = checkpoint.SHAPES[model]
        print(f"measuring {model} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as directory:
            checkpoint.write(shape, Path(directory))
            with rounds.start(names, Path(directory), limits) as contenders:
                agree = rounds.agreement(contenders, shape)
                speeds = rounds.measure_all(contenders, shape, work)
                versions = {contender.name: contender.versions for contender in contenders}
        result["models"].append(report.model_entry(shape, result, speeds, agree, versions))
    report.show(result)
    print(f"written: {report.save(result, args.results)}", file=sys.stderr)


def _bandwidth(limits: rounds.Limits) -> dict[str, float]:
    """Bytes per second of the device's memory."""
    command = [sys.executable, "-m", "benchmarks.bandwidth", limits.device, str(limits.threads)]
    output = subprocess.run(command, cwd=rounds.ROOT, text=True, capture_output=True, check=True).stdout
    measured: dict[str, float] = json.loads(output)
    return measured


if __name__ == "__main__":
    main()
