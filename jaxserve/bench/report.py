"""What a load came to: percentiles and rates, as a value that JSON can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxserve.bench.target import Measured

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Spread:
    """A quantity over all requests that it is known of."""

    name: str
    """`first_token`: until the first part with text; `between_parts`: of all gaps; `later_token`: of a request, the
    mean time of a token after the first; `whole_answer`; `sent_late`: after its time; `prompt`, `cached`, `answer`."""
    unit: str
    values: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """The value that `share` percent don't exceed, between neighbours in proportion."""
        return float(np.percentile(self.values, share))

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(np.mean(self.values))

    def summary(self) -> dict[str, float]:
        """Mean, percentiles and extremes, rounded to what a clock tells."""
        told = {"mean": self.mean, **{f"p{share}": self.percentile(share) for share in PERCENTILES}}
        return {name: round(value, 6) for name, value in (told | {"max": max(self.values)}).items()}


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    url: str
    model: str
    clients: int | None
    """Of a closed loop; None = requests came at their times."""
    requests: tuple[Measured, ...]
    planned: int
    seconds: float
    """From the start to the last answer."""

    @property
    def done(self) -> list[Measured]:
        """Those that were answered whole."""
        return [each for each in self.requests if each.error is None]

    @property
    def errors(self) -> dict[str, int]:
        """How often what went wrong, the most frequent first."""
        return dict(Counter(each.error for each in self.requests if each.error is not None).most_common())

    def spreads(self) -> list[Spread]:
        """Latencies in seconds and lengths in tokens; those of which nothing is known are left out."""
        done = self.done
        latencies: dict[str, list[float | None]] = {
            "first_token": [_since_sent(each, each.first) for each in done],
            "between_parts": [gap for each in done for gap in each.gaps],
            "later_token": [_per_token(each) for each in done],
            "whole_answer": [_since_sent(each, each.ended) for each in done],
            "sent_late": [each.sent - each.planned for each in done if each.planned is not None],
        }
        lengths: dict[str, list[float | None]] = {
            "prompt": [each.prompt_tokens for each in done],
            "cached": [each.cached_tokens for each in done],
            "answer": [each.output_tokens for each in done],
        }
        made = [_spread(name, "s", values) for name, values in latencies.items()]
        made += [_spread(name, "tokens", values) for name, values in lengths.items()]
        return [each for each in made if each.values]

    def rates(self) -> dict[str, float]:
        """Answers and tokens a second, over the whole load."""
        done = self.done
        sums = {
            "requests": len(done),
            "prompt_tokens": sum(each.prompt_tokens or 0 for each in done),
            "output_tokens": sum(each.output_tokens or each.parts for each in done),
        }
        return {name: round(total / self.seconds, 4) for name, total in sums.items()}

    def as_json(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Everything, each request included."""
        return {
            "url": self.url,
            "model": self.model,
            "settings": settings,
            "planned": self.planned,
            "answered": len(self.done),
            "errors": self.errors,
            "seconds": round(self.seconds, 6),
            "per_second": self.rates(),
            "spreads": {each.name: {"unit": each.unit, **each.summary()} for each in self.spreads()},
            "requests": [asdict(each) for each in self.requests],
        }


def running(requests: Iterable[Measured]) -> tuple[list[float], list[int]]:
    """Times at which the number of requests at the server changed, and the number from then on."""
    steps = [(each.sent, 1) for each in requests] + [(each.ended or each.sent, -1) for each in requests]
    times, changes = zip(*sorted(steps), strict=True) if steps else ((), ())
    return list(times), [int(count) for count in np.cumsum(changes)]


def _spread(name: str, unit: str, values: Sequence[float | None]) -> Spread:
    return Spread(name, unit, tuple(float(value) for value in values if value is not None))


def _since_sent(each: Measured, when: float | None) -> float | None:
    return None if when is None else when - each.sent


def _per_token(each: Measured) -> float | None:
    tokens = each.output_tokens or each.parts
    return None if tokens < 2 or each.first is None or each.ended is None else (each.ended - each.first) / (tokens - 1)
