"""Runs the notebooks in examples/. Usage: run_notebooks.py [--write] [NAME ...]; `--write` keeps what they show."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300
"""For one cell: a model compiles its programs."""


def run(path: Path, *, write: bool) -> None:
    """Runs every cell, from the repository's root; the first that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    if write:
        notebook.metadata.pop("language_info", None)
        nbformat.write(notebook, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the outputs in the files")
    parser.add_argument("names", nargs="*", help="parts of their names; all without")
    arguments = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress"  # widgets are for who sits before it
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        if not arguments.names or any(name in path.name for name in arguments.names):
            run(path, write=arguments.write)
            print(f"{path.relative_to(ROOT)}: ran")


if __name__ == "__main__":
    main()
