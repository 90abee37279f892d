"""Histograms that are filled where things happen and read by Prometheus: plain integers, cheap for each token."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from prometheus_client.core import HistogramMetricFamily


@dataclass
class Distribution:
    """Counts of values by size. Belongs to one thread.

    Args:
        bounds: upper bounds of the buckets, ascending.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    """One for each bucket, and one for what is larger."""
    total: float = 0.0
    """Sum of the values."""

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float, times: int = 1) -> None:
        """Counts a value, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def add(self, other: Distribution) -> None:
        """Takes over what another one of the same bounds has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def show(self, family: HistogramMetricFamily, labels: tuple[str, ...]) -> None:
        """Adds itself to a family, as Prometheus has it: each bucket counts all that is no larger."""
        reached, buckets = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            reached += count
            buckets.append((bound, float(reached)))
        family.add_metric(labels, buckets, self.total)
