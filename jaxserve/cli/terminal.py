"""The conversation on the screen: lines in with history, answers as markdown while they come."""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from jaxserve.cli.talk import Said, Talk
from jaxserve.errors import JaxserveError

_HISTORY_LINES = 1000


def converse(talk: Talk, console: Console, *, history: Path) -> None:
    """Reads lines until the end of input or /quit; Ctrl-C stops an answer."""
    _keep_history(history)
    console.print(f"{talk.model.name}: say something; /help lists the commands, Ctrl-C stops an answer", style="dim")
    while (line := _line()) is not None and line != "/quit":
        if line:
            _turn(talk, console, line)


def _turn(talk: Talk, console: Console, line: str) -> None:
    try:
        if line.startswith("/"):
            console.print(talk.command(line), style="dim", markup=False, highlight=False)
        else:
            show(console, talk.ask(line))
    except JaxserveError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
    except KeyboardInterrupt:
        console.print("(stopped)", style="dim")


def show(console: Console, pieces: Iterable[Said]) -> None:
    """Shows an answer while it comes: drawn anew in a terminal, written on elsewhere."""
    if not console.is_terminal:
        for said in pieces:
            console.print(said.text or said.call, end="" if said.text else "\n", markup=False, highlight=False)
        console.print()
        return
    text, thought = "", ""
    with Live(console=console, refresh_per_second=12, vertical_overflow="visible") as live:
        for said in pieces:
            text += said.text + (f"\n\n`{said.call}`\n\n" if said.call else "")
            thought += said.reasoning
            live.update(Group(*([Text(thought, style="dim italic")] if thought else []), Markdown(text)))


def _line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        return ""


def _keep_history(path: Path) -> None:
    """Lines of earlier conversations with the arrow keys, where Python has readline."""
    if not sys.stdin.isatty():
        return
    try:
        import readline
    except ImportError:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    atexit.register(_write_history, path)


def _write_history(path: Path) -> None:
    import readline

    with contextlib.suppress(OSError):
        readline.write_history_file(path)
