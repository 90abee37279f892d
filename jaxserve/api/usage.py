"""What a request cost: usage, performance metrics, and the headers made of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxserve.api.distributions import Distribution
from jaxserve.api.lower import Job
from jaxserve.api.schema.responses import UsageInfo
from jaxserve.api.settings import Settings
from jaxserve.engine.requests import Delta, DraftCounts, Timing

TOKEN_INTERVALS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
"""Buckets of the seconds between two tokens."""


@dataclass(frozen=True)
class Stopwatch:
    """Times before the engine saw the request, in seconds of `time.monotonic()`."""

    received: float
    lowering_started: float
    lowered: float


@dataclass
class Ledger:
    """Adds up the deltas of one job."""

    job: Job
    watch: Stopwatch
    completion_tokens: int = 0
    cached: dict[str, int] = field(default_factory=dict)
    """Cached prompt tokens by request id; a prompt counts once, whatever its choices found."""
    timings: dict[str, Timing] = field(default_factory=dict)
    concurrent_requests: int = 0
    drafts: DraftCounts = field(default_factory=DraftCounts)
    """Of the choices that have ended."""
    finish_reasons: Counter[str] = field(default_factory=Counter)
    stop_text: str | None = None
    """The stop text that ended a choice; of several choices, the last."""
    intervals: Distribution = field(default_factory=lambda: Distribution(TOKEN_INTERVALS))
    """Seconds between the tokens of a choice, as they came out of the engine."""
    _last: dict[tuple[str, int], float] = field(default_factory=dict)
    """When each choice's last token came."""

    def add(self, delta: Delta) -> None:
        """Counts one delta."""
        if delta.token_ids:
            self._time(delta)
        self.completion_tokens += len(delta.token_ids)
        self.cached.setdefault(delta.request_id, delta.cached_tokens)
        self.concurrent_requests = max(self.concurrent_requests, delta.concurrent_requests)
        if delta.drafts is not None:
            self.drafts += delta.drafts
        if delta.timing is not None:
            self.timings[delta.request_id] = delta.timing
        self.stop_text = delta.stop_text or self.stop_text
        if delta.finish_reason is not None:
            self.finish_reasons[delta.finish_reason] += 1

    def _time(self, delta: Delta) -> None:
        now, choice = time.monotonic(), (delta.request_id, delta.choice)
        last = self._last.get(choice)
        if last is not None:
            self.intervals.observe((now - last) / len(delta.token_ids), len(delta.token_ids))
        self._last[choice] = now

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, each once."""
        return sum(len(prompt.request.prompt) for prompt in self.job.prompts)

    @property
    def cached_tokens(self) -> int:
        """Of these, served from the prefix cache."""
        return sum(self.cached.values())

    @property
    def predicted_tokens(self) -> int:
        """Tokens that the request expected of the outputs, once for each prompt."""
        return sum(len(prompt.request.prediction) for prompt in self.job.prompts)

    @property
    def first_token(self) -> float | None:
        """When the first token of any choice was there."""
        return min((t.first_token for t in self.timings.values() if t.first_token is not None), default=None)

    @property
    def finished(self) -> float | None:
        """When the last choice ended."""
        return max((t.finished for t in self.timings.values() if t.finished is not None), default=None)

    @property
    def queued(self) -> float | None:
        """Seconds in the engine's queue, of several prompts the longest."""
        return max((t.admitted - t.arrived for t in self.timings.values() if t.admitted is not None), default=None)

    def usage(self) -> UsageInfo:
        """The `usage` object."""
        usage: UsageInfo = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
        if self.predicted_tokens:
            accepted, drafted = self.drafts.predicted
            usage["completion_tokens_details"] = {
                "accepted_prediction_tokens": accepted,
                "rejected_prediction_tokens": drafted - accepted,
            }
        return usage

    def perf_metrics(self, settings: Settings) -> dict[str, int | float | str]:
        """The documented metrics by their bare names; durations in seconds, over several prompts the longest."""
        metrics: dict[str, int | float | str] = {
            "prompt-tokens": self.prompt_tokens,
            "cached-prompt-tokens": self.cached_tokens,
        }
        if self.first_token is not None:
            metrics["server-time-to-first-token"] = _seconds(self.first_token - self.watch.received)
        if self.finished is not None:
            metrics["server-processing-time"] = _seconds(self.finished - self.watch.received)
        metrics |= {
            "speculation-prompt-tokens": self.predicted_tokens,
            "speculation-prompt-matched-tokens": self.drafts.predicted[0],
            "speculation-generated-tokens": self.drafts.drafted,
            "num-concurrent-requests": self.concurrent_requests,
            "tokenizer-queue-duration": _seconds(self.watch.lowering_started - self.watch.received),
            "tokenizer-duration": _seconds(self.watch.lowered - self.watch.lowering_started),
        }
        if self.drafts.by_position:
            rates = (accepted / drafted for accepted, drafted in self.drafts.by_position)
            metrics["speculation-acceptance"] = ",".join(f"{rate:.3f}" for rate in rates)
        metrics |= self._engine_durations()
        places = {"deployment": settings.deployment, "backend-host": settings.backend_host}
        return metrics | {name: place for name, place in places.items() if place is not None}

    def _engine_durations(self) -> dict[str, float]:
        timings = list(self.timings.values())
        prefill = [t.first_token - t.admitted for t in timings if t.first_token is not None and t.admitted is not None]
        # Prefill and decoding share the engine's steps, so nothing ever waits between the two.
        durations = {"generation-queue-duration": 0.0}
        if self.queued is not None:
            durations["prefill-queue-duration"] = _seconds(self.queued)
        if prefill:
            durations["prefill-duration"] = _seconds(max(prefill))
        if self.first_token is not None and self.finished is not None:
            durations["generation-duration"] = _seconds(self.finished - self.first_token)
        return durations


def _seconds(duration: float) -> float:
    return round(max(duration, 0.0), 6)


def perf_headers(metrics: Mapping[str, int | float | str]) -> dict[str, str]:
    """The same metrics as response headers."""
    return {f"fireworks-{name}": str(value) for name, value in metrics.items()}
