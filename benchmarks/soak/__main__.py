"""`make soak`: the figures of docs/performance.md, printed one after the other.

    python -m benchmarks.soak [--churn-seconds 120] [--requests 1000] [--dtype float32 bfloat16] [--streams 256]
                              [--skip fairness host churn same]

Fails where something is not as it must be: answers that differ, pages that are gone, a compilation while serving.
Timings are this machine's, and of what else it does; they fail nothing.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterator

from benchmarks import streams
from benchmarks.soak import churn, fairness, reproducing
from benchmarks.soak.server import serving

_FILES_APART = 16
"""Open files by which two idle moments may differ: idle connections of the client that asks for metrics, caches."""


def _fairness(_: argparse.Namespace) -> Iterator[str]:
    with serving(*fairness.SIZES) as server:
        print(fairness.fairness(server).line(), flush=True)
    yield from ()


def _host(args: argparse.Namespace) -> Iterator[str]:
    for count in args.streams:
        print(streams.measure(count, args.tokens, False, args.step_ms / 1000), flush=True)
    yield from ()


def _churn(args: argparse.Namespace) -> Iterator[str]:
    with serving(*reproducing.flags("bfloat16")) as server:
        found = churn.churn(server, args.churn_seconds)
        print(found.line(), flush=True)
        yield from wrongs(found, server.engine("total_pages"))


def wrongs(found: churn.Churned, pages: int) -> Iterator[str]:
    """What a churn should not have done."""
    if not found.healthy:
        yield "the engine died"
    if found.after.free_pages != pages:
        yield f"{pages - found.after.free_pages} pages are gone"
    if abs(found.after.files - found.before.files) > _FILES_APART:
        yield f"open files: {found.before.files} before, {found.after.files} after"


def _same(args: argparse.Namespace) -> Iterator[str]:
    for dtype in args.dtype:
        found = reproducing.measured(dtype, args.requests)
        print(found.line(), flush=True)
        if found.differing:
            yield f"{dtype}: {len(found.differing)} requests have other answers under load: {found.differing[:20]}"
        if found.compilations:
            yield f"{dtype}: {found.compilations} compilations while serving"


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "fairness": _fairness,
    "host": _host,
    "churn": _churn,
    "same": _same,
}
"""Each prints its figures and yields what is wrong."""


def main() -> int:
    """The parts that aren't left out. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--churn-seconds", type=float, default=120)
    parser.add_argument("--requests", type=int, default=1000, help="compared in each dtype, alone and under load")
    parser.add_argument("--dtype", nargs="+", choices=tuple(reproducing.PAGE_BYTES), default=["float32", "bfloat16"])
    parser.add_argument("--streams", nargs="+", type=int, default=[256], help="against the simulated device")
    parser.add_argument("--tokens", type=int, default=200, help="of each of these streams")
    parser.add_argument("--step-ms", type=float, default=5, help="what a step takes the simulated device")
    parser.add_argument("--skip", nargs="+", choices=tuple(PARTS), default=[])
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}")
    wrong = []
    for name in [name for name in PARTS if name not in args.skip]:
        print(f"--- {name}", flush=True)
        wrong += list(PARTS[name](args))
    for each in wrong:
        print(f"WRONG: {each}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
