"""OpenTelemetry traces of requests: written when a request has ended, from what is remembered of it anyway.

Only where the extra `jaxserve[otel]` is installed and the environment names a collector, as OpenTelemetry's own
variables do (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and the others, which its SDK reads). Nothing is measured
for a trace alone, so a server without traces does nothing for them. Never prompts, outputs or keys.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jaxserve.api.request_log import Record, short, short_entries
from jaxserve.engine.requests import Timing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

_log = logging.getLogger(__name__)
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PHASES = (
    ("queue", "arrived", "admitted"),
    ("prefill", "admitted", "first_token"),
    ("decode", "first_token", "finished"),
)
"""Spans within a request, and between which of the engine's times they lie."""
_SERVER_ERROR = 500


def trace_id(request_id: str) -> int:
    """The trace of a request that belongs to none: its id where that has 32 hexadecimal digits, else a hash of it."""
    bare = request_id.replace("-", "").lower()
    if _TRACE_ID.fullmatch(bare) and int(bare, 16):
        return int(bare, 16)
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:16], "big")


def traces_from_environment(environment: Mapping[str, str] = os.environ) -> Traces | None:
    """Traces to the collector that the environment names; None = it names none, or the packages are missing."""
    if not any(environment.get(name) for name in _ENDPOINTS):
        return None
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("a collector of traces is named, but nothing is sent: pip install 'jaxserve[otel]'")
        return None
    return Traces(BatchSpanProcessor(OTLPSpanExporter()))


class Traces:
    """Writes the spans of requests that have ended.

    Args:
        processor: gets the spans.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        traces = self

        class Ids(RandomIdGenerator):
            """Trace ids that follow from the request's."""

            def generate_trace_id(self) -> int:
                return traces._next_id

        self._next_id = 0
        named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "jaxserve"}
        self._provider = TracerProvider(resource=Resource.create(named), id_generator=Ids())
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("jaxserve")

    def write(self, record: Record) -> None:
        """One span for the request, and one for each phase of each of its prompts. Called on the event loop."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        ended = time.monotonic()
        self._next_id = trace_id(record.request_id)
        span = self._tracer.start_span(
            f"{record.method} {record.endpoint}",
            _parent(record.traceparent),
            SpanKind.SERVER,
            dict(_attributes(record)),
            start_time=_epoch(record.received),
        )
        _note_failure(span, record)
        within = set_span_in_context(span)
        for request_id, timing in record.ledger.timings.items() if record.ledger is not None else ():
            self._write_phases(request_id, timing, within)
        span.end(_epoch(ended))

    def close(self) -> None:
        """Sends what has not been sent."""
        self._provider.shutdown()

    def _write_phases(self, request_id: str, timing: Timing, within: Context) -> None:
        for name, begin, end in _PHASES:
            begun, ended = getattr(timing, begin), getattr(timing, end)
            if begun is not None and ended is not None:
                attributes = {"jaxserve.engine_request": request_id}
                span = self._tracer.start_span(name, within, attributes=attributes, start_time=_epoch(begun))
                span.end(_epoch(ended))


def _parent(traceparent: str | None) -> Context | None:
    """The client's own span, where it names one (W3C Trace Context)."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return None if traceparent is None else TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _epoch(moment: float) -> int:
    """A time of `time.monotonic()` as nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)


def _note_failure(span: Span, record: Record) -> None:
    from opentelemetry.trace import Status, StatusCode

    if record.status >= _SERVER_ERROR or record.error is not None:
        span.set_status(Status(StatusCode.ERROR, record.error))


def _attributes(record: Record) -> Iterator[tuple[str, Any]]:
    """What the span says, in OpenTelemetry's names where it has some."""
    known = {
        "http.request.method": record.method,
        "http.response.status_code": record.status,
        "url.path": short(record.path),
        "client.address": record.client,
        "jaxserve.request_id": record.request_id,
        "error.type": record.error,
        "gen_ai.request.model": short(record.model),
        "user.id": short(record.user),
    }
    yield from ((name, value) for name, value in known.items() if value is not None)
    for key, value in (short_entries(record.metadata) or {}).items():
        yield f"metadata.{key}", value
    if record.ledger is not None:
        yield "gen_ai.usage.input_tokens", record.ledger.prompt_tokens
        yield "gen_ai.usage.output_tokens", record.ledger.completion_tokens
        yield "gen_ai.response.finish_reasons", list(record.ledger.finish_reasons)
