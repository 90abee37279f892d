"""`jaxserve bench`: from flags to a load, its progress on the screen, its results in files."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jaxserve.bench import plots
from jaxserve.bench.drive import run
from jaxserve.bench.load import Ask, Synthetic, capped, poisson, scaled, synthetic
from jaxserve.bench.report import Report
from jaxserve.bench.table import table
from jaxserve.bench.target import Target
from jaxserve.bench.traces import read_trace
from jaxserve.cli.progress import console, output
from jaxserve.errors import ExitCode
from jaxserve.options import BenchOptions

_CLIENTS, _REQUESTS = 8, 100


def load(url: str, api_key: str | None, options: BenchOptions) -> None:
    """Asks, waits, tells, and ends the process: with an error where no request was answered."""
    if options.plot is not None:
        plots.check(options.plot)
    asks, clients = planned(options)
    report = asyncio.run(_measured(url, api_key, options, asks, clients))
    _tell(report, options)
    raise typer.Exit(ExitCode.FINE if report.done else ExitCode.CANNOT_SERVE)


def planned(options: BenchOptions) -> tuple[list[Ask], int | None]:
    """The requests, and the number of clients of a closed loop; None = at the requests' times."""
    if options.clients is not None and options.rate is not None:
        raise typer.BadParameter("a closed loop has no rate: give one of the two", param_hint="--clients")
    asks = capped(_asked(options), options.max_input, options.max_output)
    if options.rate is not None:
        return poisson(asks, options.rate, options.seed), None
    at_times = options.trace is not None and options.clients is None
    return asks, None if at_times else options.clients or _CLIENTS


def _asked(options: BenchOptions) -> list[Ask]:
    if options.trace is not None:
        return scaled(read_trace(options.trace, options.requests), options.scale, options.speed)
    lengths = (options.input, options.output, options.spread, options.prefix, options.prefixes)
    return synthetic(Synthetic(options.requests or _REQUESTS, *lengths), options.seed)


async def _measured(
    url: str, api_key: str | None, options: BenchOptions, asks: Sequence[Ask], clients: int | None
) -> Report:
    target = Target(
        url,
        model=options.model,
        endpoint=options.endpoint,
        api_key=api_key,
        timeout=options.timeout,
        seed=options.seed,
    )
    async with target:
        await target.look()
        if not target.ignores_eos:
            console.print("the server doesn't know ignore_eos: answers end where the model ends them", style="dim")
        with _bar() as bar:
            task = bar.add_task("answered", total=len(asks))
            return await run(target, asks, clients=clients, progress=lambda done, _: bar.update(task, completed=done))


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _tell(report: Report, options: BenchOptions) -> None:
    document = json.dumps(report.as_json(_settings(options)), indent=2) + "\n"
    if str(options.json) == "-":
        sys.stdout.write(document)
    else:
        output.print(table(report))
        if options.json is not None:
            options.json.write_text(document)
    if options.plot is not None and report.done:
        plots.draw(report, options.plot)


def _settings(options: BenchOptions) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
