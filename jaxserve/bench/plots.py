"""A report as pictures: how latencies are spread, and what went on at the server over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxserve.bench.report import Report, running
from jaxserve.errors import JaxserveError

_LATENCIES = ("first_token", "between_parts", "whole_answer")


class NoPlots(JaxserveError):
    """They can't be drawn so."""


_FORMATS = frozenset({".svg", ".png", ".pdf"})


def check(path: Path) -> None:
    """Tells before the load, not after it, whether plots can be drawn there.

    Raises:
        NoPlots: they can't.
    """
    if path.suffix not in _FORMATS:
        raise NoPlots(f"{path}: plots end in {', '.join(sorted(_FORMATS))}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise NoPlots("plots are drawn by matplotlib, which isn't installed: pip install 'jaxserve[plots]'") from None


def draw(report: Report, path: Path) -> None:
    """Writes the pictures; the file's ending says in which format (svg, png, pdf).

    Raises:
        NoPlots: matplotlib isn't installed, or can't write such files.
        OSError: the file can't be written.
    """
    check(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    (first, gaps), (whole, load) = figure.subplots(2, 2)
    spreads = {spread.name: spread.values for spread in report.spreads()}
    for axes, name in zip((first, gaps, whole), _LATENCIES, strict=True):
        _cumulative(axes, name, sorted(spreads.get(name, ())))
    _load(load, report)
    figure.suptitle(f"{report.model}: {len(report.done)} of {report.planned} requests in {report.seconds:.1f} s")
    figure.savefig(path)


def _cumulative(axes: Any, name: str, values: list[float]) -> None:
    shares = [(index + 1) / len(values) for index in range(len(values))]
    axes.step([1000 * value for value in values], shares, where="post")
    axes.set(
        title=name.replace("_", " "),
        xlabel="ms",
        ylabel="share of requests" if name != "between_parts" else "share of gaps",
    )
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _load(axes: Any, report: Report) -> None:
    times, counts = running(report.requests)
    axes.step(times, counts, where="post")
    axes.set(title="requests at the server", xlabel="s", ylabel="requests")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
