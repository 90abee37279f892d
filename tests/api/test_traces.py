"""OpenTelemetry spans of requests, where its SDK is installed."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from api_client import CHAT, COMPLETIONS

from jaxserve.api.request_log import new_record
from jaxserve.api.traces import Traces, trace_id, traces_from_environment
from jaxserve.api.usage import Ledger, Stopwatch
from jaxserve.engine.requests import Timing

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture
def exporter() -> Any:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture
def traced(make_api: Any, exporter: Any) -> Any:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    return make_api(traces=Traces(SimpleSpanProcessor(exporter)))


def by_name(exporter: Any) -> dict[str, Any]:
    return {span.name: span for span in exporter.get_finished_spans()}


@pytest.mark.proves("user", "metadata")
def test_a_request_is_a_span_and_its_phases(traced: Any, exporter: Any) -> None:
    body = traced.chat_body(user="ann", metadata={"run": "7"})
    traced.post(CHAT, body, headers={"x-request-id": "my-id", "authorization": "Bearer hush"})
    spans = by_name(exporter)
    assert set(spans) == {"POST chat", "queue", "prefill", "decode"}
    request = spans.pop("POST chat")
    said = {key: request.attributes[key] for key in ("user.id", "metadata.run", "jaxserve.request_id")}
    assert said == {"user.id": "ann", "metadata.run": "7", "jaxserve.request_id": "my-id"}
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["gen_ai.usage.output_tokens"] > 0
    assert request.parent is None
    assert request.context.trace_id == trace_id("my-id")
    for phase in spans.values():
        assert phase.parent.span_id == request.context.span_id
        assert phase.context.trace_id == request.context.trace_id
        assert phase.start_time <= phase.end_time
    assert spans["queue"].end_time <= spans["decode"].end_time <= request.end_time + 1_000_000
    assert not any(secret in request.to_json() for secret in ("Hi", "Hello", "hush"))


def test_phases_lie_between_the_engines_times(exporter: Any) -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    now, record = time.monotonic(), new_record({"headers": [], "method": "POST", "path": "/"})
    record.ledger = Ledger(SimpleNamespace(prompts=()), Stopwatch(now, now, now))  # type: ignore[arg-type]
    record.ledger.timings["one"] = Timing(now - 8, now - 7, now - 5, now - 1)
    record.ledger.timings["two"] = Timing(now - 8)
    Traces(SimpleSpanProcessor(exporter)).write(record)
    spans = by_name(exporter)
    seconds = {name: round((span.end_time - span.start_time) / 1e9) for name, span in spans.items() if " " not in name}
    assert seconds == {"queue": 1, "prefill": 2, "decode": 4}


def test_a_client_s_own_trace_goes_on(traced: Any, exporter: Any) -> None:
    traced.post(COMPLETIONS, traced.body("completions"), headers={"traceparent": f"00-{7:032x}-{9:016x}-01"})
    span = by_name(exporter)["POST completions"]
    assert (span.context.trace_id, span.parent.span_id) == (7, 9)


def test_a_refusal_is_an_error_and_probes_leave_nothing(traced: Any, exporter: Any) -> None:
    traced.http.get("/health")
    assert by_name(exporter) == {}
    traced.refuse("chat", 422, top_k=1000)
    span = by_name(exporter)["POST chat"]
    assert span.attributes["error.type"] == "less_than_equal"
    assert not span.status.is_ok


@pytest.mark.parametrize(
    ("request_id", "number"),
    [("0" * 31 + "a", 10), ("123e4567-e89b-12d3-a456-426614174000", 0x123E4567E89B12D3A456426614174000)],
)
def test_a_request_id_that_can_be_a_trace_id_is_one(request_id: str, number: int) -> None:
    assert trace_id(request_id) == number


def test_other_request_ids_have_traces_of_their_own() -> None:
    assert len({trace_id(f"req-{index}") for index in range(100)} | {trace_id("0" * 32)}) == 101


@pytest.mark.parametrize("environment", [{}, COLLECTOR | {"OTEL_SDK_DISABLED": "true"}])
def test_there_are_none_unless_a_collector_is_named(environment: dict[str, str]) -> None:
    assert traces_from_environment(environment) is None


def test_a_named_collector_without_the_packages_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    assert traces_from_environment(COLLECTOR) is None
    assert "jaxserve[otel]" in caplog.text


def test_nothing_of_it_is_imported_without_a_collector() -> None:
    asked = "import sys, jaxserve.api.app, jaxserve.api.traces as t; t.traces_from_environment({})"
    asked += (
        "; print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
