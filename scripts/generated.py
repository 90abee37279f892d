"""Files that scripts make: each is written, or with `--check` only compared with what would be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    every = (columns, ["---"] * len(columns), *lines)
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in every)


def main(description: str | None, output: Path, render: Callable[[], str]) -> None:
    """Entry point of such a script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="only say whether the file is current")
    if parser.parse_args().check:
        sys.exit(None if output.read_text() == render() else f"{output} is out of date: run {Path(sys.argv[0]).name}")
    output.write_text(render())
