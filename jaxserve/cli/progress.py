"""What the terminal shows while a command runs: progress bars, the start-up summary, one-sentence errors."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, ClassVar, NoReturn, Self, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from jaxserve.errors import ExitCode, HostLost, JaxserveError


class _Stderr:
    """Standard error, whatever it is by then. What a full disk refuses is lost; a server goes on without its log."""

    def write(self, text: str) -> int:
        """As of a file."""
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """As of a file."""
        with suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def leave_full_disks() -> None:
    """What can't be written any more must not become the exit code of a process that did its work (Python's 120)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            setattr(sys, name, None)


console = Console(file=cast("IO[str]", _Stderr()))
output = Console(highlight=False)
"""For what a command was asked to say."""


@contextmanager
def clear_errors() -> Iterator[None]:
    """Errors made on purpose end the process with one sentence, not a traceback."""
    try:
        yield
    except HostLost as error:
        _fail(str(error), ExitCode.HOST_LOST)
    except JaxserveError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))


def _fail(message: str, code: ExitCode = ExitCode.CANNOT_SERVE) -> NoReturn:
    console.print(f"error: {message}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(code)


class AboveBars(logging.Handler):
    """Log lines in a terminal: above progress bars, where they would break into them otherwise."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a line."""
        console.print(self.format(record), highlight=False, markup=False, soft_wrap=True)


class Bars:
    """Start-up stages as progress bars, then the summary; without a terminal, only finished stages are printed."""

    _LABELS: ClassVar = {"weights": "loading weights", "programs": "compiling programs", "convert": "converting"}

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:>18}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """As `startup.Progress`."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(self._LABELS[stage], total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def finish(self, summary: dict[str, str], last: str, invitation: Sequence[str] = ()) -> None:
        """Stops the bars and prints the start-up summary, one fact a row, then lines to paste, each whole."""
        self._bars.stop()
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in summary.items():
            table.add_row(name, value)
        console.print(table)
        console.print(last, style="bold green", highlight=False)
        for line in invitation:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
