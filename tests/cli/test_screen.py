"""What the terminal shows: help, log lines beside progress bars, what to paste, completion."""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

import jaxserve
from jaxserve.cli import app, progress
from jaxserve.cli.curl import base_url, curl_lines
from jaxserve.cli.parameters import OPTIONS
from jaxserve.options import BenchOptions, declared

COMMANDS = ("serve", "generate", "chat", "bench", "convert", "plan", "compile")


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_whole_in_a_narrow_terminal(command, columns):
    told = CliRunner().invoke(app, [*command.split(), "--help"], terminal_width=columns)
    assert told.exit_code == 0
    assert "…" not in told.output
    assert max(map(len, told.output.splitlines())) <= columns
    words = set(re.split(r"[\s\[\],;]+", told.output))
    options = declared(BenchOptions) if command == "bench" else OPTIONS
    for each in options:
        if command == "bench" or command in each.option.commands:
            assert each.option.positional or each.flag in words
            assert command == "bench" or columns < 80 or each.variables[0] in words


def test_help_keeps_the_groups_of_options():
    told = CliRunner().invoke(app, ["serve", "--help"]).output
    assert [line for line in told.splitlines() if line in ("HTTP:", "Model:", "Memory:", "Devices:")][:2]
    assert len(re.findall(r"^[A-Z][a-zA-Z ]+:$", told, re.MULTILINE)) >= 5


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output == f"jaxserve {jaxserve.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete(shell):
    environment = {"_JAXSERVE_COMPLETE": f"source_{shell}"}
    told = CliRunner().invoke(app, [], prog_name="jaxserve", env=environment)
    assert "jaxserve" in told.output
    environment = {"_JAXSERVE_COMPLETE": "complete_bash", "COMP_WORDS": "jaxserve serve --max-w", "COMP_CWORD": "2"}
    assert "--max-waiting" in CliRunner().invoke(app, [], prog_name="jaxserve", env=environment).output


def test_log_lines_stand_above_the_bars(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "console", console)
    log = logging.Logger("made here")
    log.addHandler(progress.AboveBars())
    with progress.Bars() as bars:
        bars("weights", 50, 100)
        log.warning("a line [of] %s", "its own " * 20)
        bars("weights", 100, 100)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", screen.getvalue())
    assert f"a line [of] {'its own ' * 20}".strip() in [line.strip() for line in shown.splitlines()]


def test_summary_ends_with_lines_to_paste(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, width=40))
    lines = curl_lines("http://127.0.0.1:8000/v1", "it's [a] model", chats=True, keyed=False)
    with progress.Bars() as bars:
        bars.finish({"model": "m"}, "serving on x", lines)
    assert screen.getvalue().rstrip().splitlines()[-3:] == lines, "whole, whatever the width"


@pytest.mark.parametrize("chats", [True, False])
def test_the_lines_survive_a_shell(chats):
    """Whatever the model is called; the key comes from the shell."""
    name = 'it\'s "a" $MODEL'
    for line in curl_lines("http://[::1]:80/v1", name, chats=chats, keyed=True):
        words = shlex.split(line)
        assert words[0] == "curl"
        assert json.loads(words[-1])["model"] == name
        assert "Authorization: Bearer $JAXSERVE_API_KEY" in words
        spoken = subprocess.run(
            ["sh", "-c", line.replace("curl", f"{sys.executable} -c 'import sys; print(sys.argv)'", 1)],
            capture_output=True,
            text=True,
            check=True,
            env={"JAXSERVE_API_KEY": "secret"},
        )
        assert "Authorization: Bearer secret" in spoken.stdout
    assert all(("chat" in line) == chats for line in curl_lines("x", "m", chats=chats, keyed=False)[:2])


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("0.0.0.0", "http://127.0.0.1:1/v1"),
        ("::", "http://[::1]:1/v1"),
        ("::1", "http://[::1]:1/v1"),
        ("localhost", "http://localhost:1/v1"),
    ],
)
def test_the_address_is_one_that_clients_can_use(host, base):
    assert base_url(host, 1) == base
