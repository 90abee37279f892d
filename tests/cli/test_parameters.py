"""Flag before environment variable before file before default, for every option of `serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from jaxserve.cli.parameters import OPTIONS, takes_options

SERVED = [each for each in OPTIONS if "serve" in each.option.commands]


def run(arguments=(), env=None):
    """What a command with the options of `serve` gets, or the text it prints in refusing."""
    got: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @takes_options("serve")
    def command(**options: Any) -> None:
        got.update(options)

    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", **(env or {})})
    return got if result.exit_code == 0 else " ".join(result.output.split())


def samples(each) -> list[Any]:
    """Three values that are not the default, as the command gets them, the same one where there is no other."""
    if each.choices:
        others = [choice for choice in each.choices if choice != each.default]
        return (others * 3)[:3]
    if each.kind is bool:
        return [not each.default] * 3
    if each.repeatable:
        return [["a"], ["b", "c"], ["d"]]
    if each.name == "mesh":
        return [(1, 2, 1), (1, 4, 1), 8]
    if each.option.parse is not None:
        return [1 << 10, 2 << 20, 3000]
    if each.option.most == 1:
        return [0.25, 0.5, 0.75]
    return {int: [3, 4, 5], float: [3.0, 4.0, 5.5], str: ["x", "y", "z"], Path: [Path(p) for p in "xyz"]}[each.kind]


def text(value) -> str:
    return f"replica={value[0]},kv={value[1]},group={value[2]}" if isinstance(value, tuple) else str(value)


def as_flags(each, value) -> list[str]:
    if each.option.positional:
        return [value]
    if each.kind is bool:
        return [each.flag if value else f"--no-{each.flag[2:]}"]
    return [part for item in (value if each.repeatable else [value]) for part in (each.flag, text(item))]


def as_file(each, value) -> str:
    plain = value if isinstance(value, bool | int | float | list) else text(value)
    return f"{each.name} = {json.dumps(plain)}\n"


@pytest.mark.parametrize("each", SERVED, ids=lambda each: each.name)
def test_flag_then_environment_then_file_then_default(each, tmp_path):
    flag, env, file = samples(each)
    config = tmp_path / "c.toml"
    config.write_text(as_file(each, file))
    variables = {each.variables[0]: ",".join(env) if each.repeatable else text(env)}
    default = list(each.default) or None if each.repeatable else each.default
    assert (run()[each.name] or None) == (default or None)
    from_file = ["--config", str(config)]
    assert run(from_file)[each.name] == file
    assert run(from_file, variables)[each.name] == env
    assert run([*from_file, *as_flags(each, flag)], variables)[each.name] == flag
    assert run(env={"JAXSERVE_CONFIG": str(config)})[each.name] == file


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "70000"], "--port"),
        (["--max-waiting", "0"], "--max-waiting"),
        (["--dtype", "float8"], "--dtype"),
        (["--mesh", "banana"], "'banana' is neither a number of devices nor axes"),
        (["--kv-memory", "lots"], "'lots' is not a size"),
        (["--max-body-bytes", "0"], "--max-body-bytes"),
        (["--no-such"], "--no-such"),
        (["--page-size", "8"], "--page-size"),
    ],
)
def test_bad_flags_are_named(arguments, says):
    assert says in run(arguments)


def test_bad_values_of_variables_and_files_are_named(tmp_path):
    assert "JAXSERVE_PORT" in run(env={"JAXSERVE_PORT": "x"})
    config = tmp_path / "c.toml"
    config.write_text("port = 70000\n")
    assert "--port" in run(["--config", str(config)])
    config.write_text("prot = 1\n")
    assert "no option 'prot'; did you mean port?" in run(["--config", str(config)])


def test_a_file_may_hold_options_of_other_commands(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("port = 1\nmax_model_len = 64\n")
    got: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @takes_options("generate")
    def command(**options: Any) -> None:
        got.update(options)

    assert CliRunner().invoke(app, ["--config", str(config)]).exit_code == 0
    assert got["max_model_len"] == 64
    assert "port" not in got


def test_lists_in_variables_are_separated_by_commas():
    for name in ("JAXSERVE_API_KEYS", "JAXSERVE_API_KEY"):
        assert run(env={name: "a, b,,c"})["api_keys"] == ["a", "b", "c"]
    assert run(["--api-key", "a,b"])["api_keys"] == ["a,b"], "a flag is one value"
