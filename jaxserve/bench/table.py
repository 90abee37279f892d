"""A report on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxserve.bench.report import PERCENTILES, Report, Spread

_COLUMNS = ("mean", *(f"p{share}" for share in PERCENTILES), "max")


def table(report: Report) -> Group:
    """What was asked, percentiles, rates, and what went wrong."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    how = "at their times" if report.clients is None else f"by {report.clients} clients in turns"
    answered = f"{len(report.done)} of {report.planned} requests, sent {how}, answered in {report.seconds:.1f} s"
    yield Text(f"{report.model}: {answered}")
    if report.done:
        yield _latencies(report)
        yield Text(
            ", ".join(f"{rate:,.4g} {name.replace('_', ' ')}" for name, rate in report.rates().items()) + " a second"
        )
    for message, times in report.errors.items():
        yield Text(f"{times} failed: {message}", style="red")


def _latencies(report: Report) -> Table:
    made = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    made.add_column("", no_wrap=True)
    for name in (*_COLUMNS, ""):
        made.add_column(name, justify="right" if name else "left")
    for spread in report.spreads():
        made.add_row(spread.name.replace("_", " "), *_cells(spread), "ms" if spread.unit == "s" else spread.unit)
    return made


def _cells(spread: Spread) -> Iterator[str]:
    told = spread.summary()
    for name in _COLUMNS:
        yield f"{told[name] * 1000:,.1f}" if spread.unit == "s" else f"{told[name]:,.0f}"
