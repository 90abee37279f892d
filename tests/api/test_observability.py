"""Request ids, the request log, metrics, probes and the model list."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_client import CHAT, COMPLETIONS, Api, check
from api_fakes import CONTEXT, VOCABULARY, FakeEngine, model_info
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from jaxserve.api.distributions import Distribution
from jaxserve.api.log_format import JsonFormatter
from jaxserve.engine.engine import EngineStats

MakeApi = Callable[..., Api]
BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])


def log_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.message) for record in caplog.records if record.name == "jaxserve.requests"]


@BOTH
@pytest.mark.proves("user", "metadata")
def test_the_request_log(api: Api, caplog: pytest.LogCaptureFixture, endpoint: str) -> None:
    caplog.set_level(logging.INFO, "jaxserve.requests")
    path = CHAT if endpoint == "chat" else COMPLETIONS
    body = api.body(endpoint, user="ann", metadata={"run": "7"}, n=2, stop="world")
    response = api.post(path, body, headers={"x-request-id": "my-id:1", "authorization": "Bearer hush"})
    (line,) = log_lines(caplog)
    assert {
        key: line[key] for key in ("request_id", "method", "path", "status", "user", "metadata", "model", "stream")
    } == {
        "request_id": "my-id:1",
        "method": "POST",
        "path": path,
        "status": 200,
        "user": "ann",
        "metadata": {"run": "7"},
        "model": "fake",
        "stream": False,
    }
    assert line["prompt_tokens"] == len(api.last().prompt)
    assert line["completion_tokens"] == 22
    assert line["finish_reasons"] == {"stop": 2}
    assert 0 < line["time_to_first_token"] < line["duration"]
    assert response.headers["x-request-id"] == "my-id:1"
    assert not any(secret in caplog.text for secret in ("Hi", "Hello", "hush"))


def test_refusals_are_logged_with_their_code(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jaxserve.requests")
    api.refuse("chat", 422, top_k=1000)
    api.refuse("chat", 422, store=True, user="ann")
    lines = log_lines(caplog)
    assert [(line["status"], line["error"]) for line in lines] == [(422, "less_than_equal"), (422, "invalid_value")]
    assert lines[1]["user"] == "ann"


LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    "fields",
    [
        {"user": LONG},
        {"metadata": {LONG: "a"}},
        {"metadata": {"a": LONG}},
        {"metadata": {f"key {index}": LONG[:1000] for index in range(64)}},
        {"model": LONG},
        {LONG: 1},
    ],
)
def test_a_log_line_is_short_whatever_a_client_writes(
    api: Api, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO)
    api.post(CHAT, api.chat_body(**fields))
    assert len(log_lines(caplog)) == 1
    assert all(len(record.getMessage()) < 10_000 for record in caplog.records)


def test_a_long_path_is_cut_in_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jaxserve.requests")
    api.http.get("/v1/models/" + LONG[:50_000])
    (line,) = log_lines(caplog)
    assert len(line["path"]) <= 256
    assert line["client"] == "testclient"


def formatted(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_the_log_as_json(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api.chat(user="ann\nmary")
    logging.getLogger("jaxserve.some").warning("two\nlines of %s", "text")
    try:
        raise ValueError("oh")
    except ValueError:
        logging.getLogger("jaxserve.some").exception("failed")
    request, plain, failure = [line for line in formatted(caplog) if line["logger"].startswith("jaxserve")]
    assert (request["level"], request["user"], request["status"]) == ("info", "ann\nmary", 200)
    assert request["client"] == "testclient"
    assert plain["message"] == "two\nlines of text"
    assert "ValueError: oh" in failure["exception"]
    assert datetime.fromisoformat(request["time"]).tzinfo is not None
    assert not any("\n" in JsonFormatter().format(record) for record in caplog.records)


def test_probes_do_not_fill_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jaxserve.requests")
    for path in ("/health", "/ready", "/metrics"):
        api.http.get(path)
    assert log_lines(caplog) == []
    caplog.set_level(logging.DEBUG, "jaxserve.requests")
    api.http.get("/health")
    assert log_lines(caplog)[0]["path"] == "/health"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "naïve", "a\tb"])
def test_request_ids_that_are_not_sane_are_replaced(api: Api, given: str) -> None:
    response = api.post(CHAT, api.chat_body(), headers={"x-request-id": given.encode("latin-1")})
    assert response.headers["x-request-id"].startswith("req-")


def test_every_answer_has_an_id(api: Api) -> None:
    ids = {api.http.get(path).headers["x-request-id"] for path in ("/health", "/nothing", "/v1/models", "/metrics")}
    assert len(ids) == 4


def metrics_of(api: Api) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(api.http.get("/metrics").text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_metrics(make_api: MakeApi) -> None:
    api = make_api(FakeEngine(cached=2))
    api.chat(n=2)
    api.stream("completions", max_tokens=5)
    api.refuse("chat", 422, top_k=1000)
    api.http.get("/no/such/path")
    found = metrics_of(api)
    assert found["jaxserve_requests_total", "chat", "200"] == 1
    assert found["jaxserve_requests_total", "chat", "422"] == 1
    assert found["jaxserve_requests_total", "completions", "200"] == 1
    assert found["jaxserve_requests_total", "other", "404"] == 1
    assert found["jaxserve_prompt_tokens_total", "chat"] == len(api.engine.requests[0].prompt)
    assert found["jaxserve_cached_prompt_tokens_total", "chat"] == 2
    assert found["jaxserve_completion_tokens_total", "chat"] == 25
    assert found["jaxserve_completion_tokens_total", "completions"] == 5
    assert found["jaxserve_time_to_first_token_seconds_count", "chat"] == 1
    assert found["jaxserve_request_duration_seconds_count", "completions"] == 1
    assert found["jaxserve_requests_in_flight",] == 1
    engine = {"running": 0, "waiting": 3, "free_pages": 41, "compilations_total": 7, "healthy": 1, "ready": 1}
    assert {name: found[f"jaxserve_engine_{name}",] for name in engine} == engine


def test_metrics_under_the_names_of_vllm(make_api: MakeApi) -> None:
    """Same meaning, same name: both endpoints together, labelled with the model."""
    api = make_api(FakeEngine(delay=0.002))
    api.chat(n=2)
    api.stream("completions", max_tokens=5)
    found = metrics_of(api)
    choices = 3
    tokens = 25 + 5
    assert found["vllm:num_requests_waiting", "fake"] == 3
    assert found["vllm:request_success_total", "stop", "fake"] == 2
    assert found["vllm:request_success_total", "length", "fake"] == 1
    assert found["vllm:time_to_first_token_seconds_count", "fake"] == 2
    assert found["vllm:e2e_request_latency_seconds_count", "fake"] == 2
    assert found["vllm:request_queue_time_seconds_count", "fake"] == 2
    assert found["vllm:request_generation_tokens_sum", "fake"] == tokens
    assert found["vllm:inter_token_latency_seconds_count", "fake"] == tokens - choices
    assert found["vllm:inter_token_latency_seconds_sum", "fake"] >= 0.002 * 10
    assert found["jaxserve_inter_token_seconds_count", "chat"] == 25 - 2
    assert found["process_resident_memory_bytes",] > 1 << 20
    assert found["process_open_fds",] > 2


def test_a_metric_that_only_grows_is_a_counter(api: Api) -> None:
    """Rates over a gauge are not what they seem: each family has the type of what it counts."""
    api.chat()
    families = {family.name: family.type for family in text_string_to_metric_families(api.http.get("/metrics").text)}
    assert families["jaxserve_engine_compilations"] == "counter"
    assert families["jaxserve_engine_running"] == families["vllm:kv_cache_usage_perc"] == "gauge"
    assert families["vllm:time_to_first_token_seconds"] == "histogram"
    assert set(families.values()) == {"counter", "gauge", "histogram"}


def test_buckets_hold_all_that_is_no_larger() -> None:
    distribution = Distribution((1, 2))
    for value in (0.5, 1, 1.5, 2, 9):
        distribution.observe(value)
    distribution.observe(3, times=2)
    family = HistogramMetricFamily("x", "x", labels=("a",))
    distribution.show(family, ("b",))
    assert [(sample.labels.get("le"), sample.value) for sample in family.samples] == [
        ("1", 2),
        ("2", 4),
        ("+Inf", 7),
        (None, 7),
        (None, 20),
    ]


def test_the_dashboard_asks_for_metrics_that_exist(api: Api) -> None:
    """Every name in a query of the Grafana dashboard is one that `/metrics` shows (the engine's as EngineStats has)."""
    api.chat()
    shown = {
        sample.name
        for family in text_string_to_metric_families(api.http.get("/metrics").text)
        for sample in family.samples
    }
    engine = {f"jaxserve_engine_{field.name}" for field in dataclasses.fields(EngineStats)}
    shown |= engine | {f"{name}_total" for name in engine}
    root = Path(__file__).parents[2]
    dashboard = json.loads((root / "deploy" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"(?:jaxserve_|vllm:|process_)\w+", query)}
    assert len(asked) > 12
    assert asked <= shown, asked - shown
    assert (
        subprocess.run([sys.executable, root / "scripts" / "make_dashboard.py", "--check"], check=False).returncode == 0
    )


def test_probes(api: Api) -> None:
    for path in ("/health", "/ready"):
        response = api.http.get(path)
        assert response.status_code == 200
        check(response.json(), "Status")
    assert api.http.get("/version").json().keys() == {"version"}


@pytest.mark.parametrize("prefix", ["/v1", "/inference/v1"])
def test_models(make_api: MakeApi, prefix: str) -> None:
    api = make_api(model=model_info(routed_experts=(2, 2)))
    listed = api.http.get(f"{prefix}/models").json()
    check(listed, "ModelList")
    assert [card["id"] for card in listed["data"]] == ["fake", "accounts/test/models/fake"]
    card = api.http.get(f"{prefix}/models/accounts/test/models/fake").json()
    check(card, "ModelCard")
    assert (card["context_length"], card["vocab_size"], card["supports_chat"]) == (CONTEXT, VOCABULARY, True)
    assert "include_routing_matrix" in card["features"]
    assert "tools" in card["features"]
    assert {"speculation", "prediction"} <= set(card["features"])
    assert "images" not in card["features"]
    missing = api.http.get(f"{prefix}/models/none")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("prefix", ["/v1", "/inference/v1"])
def test_both_prefixes_serve_both_endpoints(api: Api, prefix: str) -> None:
    assert api.post(f"{prefix}/chat/completions", api.chat_body()).status_code == 200
    assert api.post(f"{prefix}/completions", api.body("completions")).status_code == 200
