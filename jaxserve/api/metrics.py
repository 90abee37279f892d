"""Prometheus metrics, in a registry of their own (several servers can live in one process).

What means the same as a metric of vLLM has its name too, so that dashboards, autoscalers and gateways made for that
read this server; everything else begins with `jaxserve_`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from jaxserve.api.distributions import Distribution
from jaxserve.api.ports import EngineLike
from jaxserve.api.request_log import Record
from jaxserve.api.usage import TOKEN_INTERVALS, Ledger

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)

_GAUGES = frozenset({"waiting", "running", "free_pages", "total_pages", "cached_pages"})
"""Numbers of the engine that go up and down; all others only grow."""


@dataclass(frozen=True)
class _Shared:
    """A metric of vLLM that the engine's numbers answer.

    Args:
        name: vLLM's.
        text: what it means.
        value: of the engine's numbers, by name.
        grows: whether it is a counter.
    """

    name: str
    text: str
    value: Callable[[dict[str, Any]], float]
    grows: bool = False

    def family(self, model: str, stats: dict[str, Any]) -> Metric:
        """As Prometheus has it."""
        kind = CounterMetricFamily if self.grows else GaugeMetricFamily
        family = kind(f"vllm:{self.name}", self.text, labels=("model_name",))
        family.add_metric((model,), self.value(stats))
        return family


def _number(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda stats: float(stats.get(name, 0))


def _usage(stats: dict[str, Any]) -> float:
    total = stats.get("total_pages", 0)
    return 1 - stats["free_pages"] / total if total else 0.0


_SHARED = (
    _Shared("num_requests_running", "Sequences that run.", _number("running")),
    _Shared("num_requests_waiting", "Sequences that wait for a slot.", _number("waiting")),
    _Shared("kv_cache_usage_perc", "Share of the KV pages that sequences hold; 1 = all.", _usage),
    _Shared("num_preemptions", "Times that a sequence lost its pages.", _number("preemptions"), grows=True),
    _Shared("prefix_cache_queries", "Prompt tokens looked up.", _number("prefix_query_tokens"), grows=True),
    _Shared("prefix_cache_hits", "Prompt tokens found in the cache.", _number("prefix_hit_tokens"), grows=True),
    _Shared("prompt_tokens", "Prompt tokens.", _number("prompt_tokens"), grows=True),
    _Shared("generation_tokens", "Generated tokens.", _number("generated_tokens"), grows=True),
    _Shared("spec_decode_num_draft_tokens", "Tokens guessed.", _number("drafted_tokens"), grows=True),
    _Shared("spec_decode_num_accepted_tokens", "Tokens guessed right.", _number("accepted_drafts"), grows=True),
)


class _EngineCollector(Collector):
    """The engine's own numbers, read when they are asked for."""

    def __init__(self, engine: EngineLike, model: str) -> None:
        self._engine = engine
        self._model = model

    def collect(self) -> Iterator[Metric]:
        stats = dataclasses.asdict(self._engine.stats())
        for name, value in stats.items():
            kind = GaugeMetricFamily if name in _GAUGES else CounterMetricFamily
            yield kind(f"jaxserve_engine_{name}", f"Engine: {name.replace('_', ' ')}.", float(value))
        yield GaugeMetricFamily("jaxserve_engine_healthy", "1 while the engine runs.", float(self._engine.healthy))
        yield GaugeMetricFamily("jaxserve_engine_ready", "1 while requests are accepted.", float(self._engine.ready))
        for shared in _SHARED:
            yield shared.family(self._model, stats)


class _Histogram(Collector):
    """A distribution for each endpoint, under our name and, all endpoints together, vLLM's.

    Args:
        name: ours, without prefix.
        shared: vLLM's, without prefix.
        text: what it means.
        bounds: of the buckets.
        model: the label of vLLM's.
    """

    def __init__(self, name: str, shared: str, text: str, bounds: tuple[float, ...], model: str) -> None:
        self._name, self._shared, self._text, self._bounds, self._model = name, shared, text, bounds, model
        self._by_endpoint: dict[str, Distribution] = {}

    def of(self, endpoint: str) -> Distribution:
        """That of one endpoint."""
        return self._by_endpoint.setdefault(endpoint, Distribution(self._bounds))

    def collect(self) -> Iterator[Metric]:
        own = HistogramMetricFamily(f"jaxserve_{self._name}", self._text, labels=("endpoint",))
        together = Distribution(self._bounds)
        for endpoint, distribution in self._by_endpoint.items():
            distribution.show(own, (endpoint,))
            together.add(distribution)
        shared = HistogramMetricFamily(f"vllm:{self._shared}", self._text, labels=("model_name",))
        together.show(shared, (self._model,))
        yield from (own, shared)


class _Finished(Collector):
    """Choices that ended, by reason, as vLLM counts its requests."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.reasons: Counter[str] = Counter()

    def collect(self) -> Iterator[Metric]:
        text = "Choices that ended, by their finish reason."
        family = CounterMetricFamily("vllm:request_success", text, labels=("model_name", "finished_reason"))
        for reason, count in self.reasons.items():
            family.add_metric((self._model, reason), count)
        yield family


class Metrics:
    """Everything `/metrics` shows.

    Args:
        engine: whose numbers are shown.
        model: the served model's name.
    """

    def __init__(self, engine: EngineLike, model: str) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(engine, model))
        ProcessCollector(registry=self.registry)
        labels = ("endpoint",)
        self.requests = PrometheusCounter(
            "jaxserve_requests",
            "HTTP requests; status 499 = the client left.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.in_flight = Gauge("jaxserve_requests_in_flight", "HTTP requests being answered.", registry=self.registry)
        self.prompt_tokens = PrometheusCounter(
            "jaxserve_prompt_tokens", "Prompt tokens.", labels, registry=self.registry
        )
        self.cached_tokens = PrometheusCounter(
            "jaxserve_cached_prompt_tokens", "Prompt tokens from the prefix cache.", labels, registry=self.registry
        )
        self.completion_tokens = PrometheusCounter(
            "jaxserve_completion_tokens", "Generated tokens.", labels, registry=self.registry
        )
        self.finished = _Finished(model)
        self.registry.register(self.finished)

        def histogram(name: str, shared: str, text: str, bounds: tuple[float, ...] = _SECONDS) -> _Histogram:
            made = _Histogram(name, shared, text, bounds, model)
            self.registry.register(made)
            return made

        self.first_token = histogram(
            "time_to_first_token_seconds", "time_to_first_token_seconds", "Request received to first token."
        )
        self.intervals = histogram(
            "inter_token_seconds", "inter_token_latency_seconds", "Between tokens of a choice.", TOKEN_INTERVALS
        )
        self.queued = histogram(
            "queue_seconds", "request_queue_time_seconds", "In the engine's queue, before the first step."
        )
        self.latency = histogram(
            "request_duration_seconds", "e2e_request_latency_seconds", "Request received to answer complete."
        )
        self.prompt_lengths = histogram(
            "prompt_length_tokens", "request_prompt_tokens", "Prompt tokens of a request, all prompts.", _TOKENS
        )
        self.output_lengths = histogram(
            "completion_length_tokens",
            "request_generation_tokens",
            "Generated tokens of a request, all choices.",
            _TOKENS,
        )

    def observe(self, record: Record, duration: float) -> None:
        """Counts a request that has ended. Called on the event loop."""
        endpoint = record.endpoint
        self.requests.labels(endpoint, str(record.status)).inc()
        if record.ledger is not None:
            self._observe(endpoint, record.ledger, record.received)
            self.latency.of(endpoint).observe(duration)

    def _observe(self, endpoint: str, ledger: Ledger, received: float) -> None:
        self.prompt_tokens.labels(endpoint).inc(ledger.prompt_tokens)
        self.cached_tokens.labels(endpoint).inc(ledger.cached_tokens)
        self.completion_tokens.labels(endpoint).inc(ledger.completion_tokens)
        self.prompt_lengths.of(endpoint).observe(ledger.prompt_tokens)
        self.output_lengths.of(endpoint).observe(ledger.completion_tokens)
        self.intervals.of(endpoint).add(ledger.intervals)
        self.finished.reasons.update(ledger.finish_reasons)
        if ledger.first_token is not None:
            self.first_token.of(endpoint).observe(ledger.first_token - received)
        if ledger.queued is not None:
            self.queued.of(endpoint).observe(ledger.queued)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
