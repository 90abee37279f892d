"""Prometheus metrics, in a registry of their own (several servers can live in one process)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from jaxserve.api.ports import EngineLike
from jaxserve.api.request_log import Record

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


class _EngineCollector(Collector):
    """The engine's own numbers, read when they are asked for."""

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, value in dataclasses.asdict(self._engine.stats()).items():
            if isinstance(value, (int, float)):
                yield GaugeMetricFamily(f"jaxserve_engine_{name}", f"Engine: {name.replace('_', ' ')}.", float(value))
        yield GaugeMetricFamily("jaxserve_engine_healthy", "1 while the engine runs.", float(self._engine.healthy))
        yield GaugeMetricFamily("jaxserve_engine_ready", "1 while requests are accepted.", float(self._engine.ready))


class Metrics:
    """Everything `/metrics` shows."""

    def __init__(self, engine: EngineLike) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(engine))
        labels = ("endpoint",)
        self.requests = Counter(
            "jaxserve_requests",
            "HTTP requests; status 499 = the client left.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.in_flight = Gauge("jaxserve_requests_in_flight", "HTTP requests being answered.", registry=self.registry)
        self.prompt_tokens = Counter("jaxserve_prompt_tokens", "Prompt tokens.", labels, registry=self.registry)
        self.cached_tokens = Counter(
            "jaxserve_cached_prompt_tokens", "Prompt tokens from the prefix cache.", labels, registry=self.registry
        )
        self.completion_tokens = Counter(
            "jaxserve_completion_tokens", "Generated tokens.", labels, registry=self.registry
        )
        self.first_token = Histogram(
            "jaxserve_time_to_first_token_seconds",
            "Request received to first token.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.latency = Histogram(
            "jaxserve_request_duration_seconds",
            "Request received to answer complete.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.output_lengths = Histogram(
            "jaxserve_completion_length_tokens",
            "Generated tokens of a request, all choices.",
            labels,
            buckets=_TOKENS,
            registry=self.registry,
        )

    def observe(self, record: Record, duration: float) -> None:
        """Counts a request that has ended."""
        self.requests.labels(record.endpoint, str(record.status)).inc()
        self.latency.labels(record.endpoint).observe(duration)
        ledger = record.ledger
        if ledger is None:
            return
        self.prompt_tokens.labels(record.endpoint).inc(ledger.prompt_tokens)
        self.cached_tokens.labels(record.endpoint).inc(ledger.cached_tokens)
        self.completion_tokens.labels(record.endpoint).inc(ledger.completion_tokens)
        self.output_lengths.labels(record.endpoint).observe(ledger.completion_tokens)
        if ledger.first_token is not None:
            self.first_token.labels(record.endpoint).observe(ledger.first_token - record.received)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
