"""From declared options to a command's parameters: flag before environment variable before file before default."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxserve.errors import ModelLoadError
from jaxserve.options import ApiOptions, Declared, EngineOptions, HostsOptions, ServeOptions, declared
from jaxserve.options.file import read_config

OPTIONS = tuple(declared(ServeOptions, EngineOptions, HostsOptions, ApiOptions))
"""Every option of every command, in the order of the help text."""


def takes_options(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a command's declared options to its own parameters; it gets them as keyword arguments."""
    added = [_parameter(each) for each in OPTIONS if command in each.option.commands]
    return _adding([*added, _CONFIG] if command != "convert" else added)


def takes_only(options: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds options that flags alone give: no other command takes them, so neither environment nor file names them."""
    return _adding([_parameter(each, environment=False) for each in declared(options)])


def _adding(added: list[inspect.Parameter]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def adapt(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "options"]
        keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *added)]
        parameters = sorted(keywords, key=lambda p: p.name != "model")  # the argument comes first
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {p.name: p.annotation for p in parameters}
        return function

    return adapt


def ignore_service_links() -> None:
    """Kubernetes sets JAXSERVE_PORT=tcp://... in every pod beside a service called jaxserve: not a port of ours."""
    if os.environ.get("JAXSERVE_PORT", "").startswith("tcp://"):
        del os.environ["JAXSERVE_PORT"]


def _parameter(each: Declared, *, environment: bool = True) -> inspect.Parameter:
    """What typer makes an argument, a flag, or a pair of flags of."""
    told = each.option
    shared: dict[str, Any] = {
        "help": told.help,
        "envvar": (each.variables if told.also else each.variables[0]) if environment else None,
        "show_default": each.default_words if told.default_text or told.parse else True,
    }
    if told.positional:
        return _keyword(each.name, str, typer.Argument(**shared), None)
    shared["rich_help_panel"] = told.group
    if each.repeatable:
        return _keyword(each.name, list[each.kind], typer.Option(each.flag, callback=_split, **shared), None)  # type: ignore[name-defined]
    if told.parse is not None:
        info = typer.Option(each.flag, parser=_text_only(told.parse), metavar=told.metavar, **shared)
        return _keyword(each.name, str, info, each.default)
    names = f"{each.flag}/--no-{each.flag[2:]}" if each.kind is bool else each.flag
    return _keyword(each.name, each.kind, typer.Option(names, min=told.least, max=told.most, **shared), each.default)


def _keyword(name: str, kind: Any, info: Any, default: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _text_only(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """typer sends defaults, which are values already, through the parser too."""

    def parse_text(value: Any) -> Any:
        try:
            return parse(value) if isinstance(value, str) else value
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse_text


def _split(context: typer.Context, parameter: typer.CallbackParam, value: list[str] | None) -> Any:
    """A list in an environment variable is written a,b."""
    source = context.get_parameter_source(parameter.name or "")
    if value and source is not None and source.name == "ENVIRONMENT":
        return [part.strip() for part in ",".join(value).split(",") if part.strip()]
    return value


def _read_file(context: typer.Context, path: Path | None) -> None:
    """What the file says stands where neither flag nor environment does."""
    if path is not None:
        try:
            context.default_map = read_config(path, OPTIONS)
        except ModelLoadError as error:
            raise typer.BadParameter(str(error)) from None


_CONFIG = _keyword(
    "config",
    Path,
    typer.Option(
        callback=_read_file,
        is_eager=True,
        envvar="JAXSERVE_CONFIG",
        help="TOML file of options, written as in docs/configuration.md.",
    ),
    None,
)
