"""Writes deploy/grafana.json, a dashboard of the metrics of `/metrics`. Usage: make_dashboard.py [--check]"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generated import main

OUTPUT = Path(__file__).resolve().parents[1] / "deploy" / "grafana.json"
_RATE = "[$__rate_interval]"


def percentiles(name: str) -> list[tuple[str, str]]:
    """Median, p95 and p99 of one of our histograms."""
    buckets = f"sum by (le) (rate(jaxserve_{name}_bucket{_RATE}))"
    return [(f"p{round(share * 100)}", f"histogram_quantile({share}, {buckets})") for share in (0.5, 0.95, 0.99)]


def rates(**names: str) -> list[tuple[str, str]]:
    """Growth a second of counters."""
    return [(legend.replace("_", " "), f"sum(rate({name}_total{_RATE}))") for legend, name in names.items()]


PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "Requests a second, by status",
        "reqps",
        [("{{status}}", f"sum by (status) (rate(jaxserve_requests_total{_RATE}))")],
    ),
    (
        "Sequences",
        "short",
        [("running", "sum(jaxserve_engine_running)"), ("waiting", "sum(jaxserve_engine_waiting)")],
    ),
    ("Time to first token", "s", percentiles("time_to_first_token_seconds")),
    ("Between tokens", "s", percentiles("inter_token_seconds")),
    ("In the queue", "s", percentiles("queue_seconds")),
    ("Request to answer", "s", percentiles("request_duration_seconds")),
    (
        "Tokens a second",
        "short",
        rates(prompt="jaxserve_engine_prompt_tokens", generated="jaxserve_engine_generated_tokens"),
    ),
    ("KV pages in use", "percentunit", [("", "max(vllm:kv_cache_usage_perc)")]),
    (
        "Prompt tokens from the cache",
        "percentunit",
        [
            (
                "share",
                f"sum(rate(jaxserve_engine_prefix_hit_tokens_total{_RATE})) / "
                f"sum(rate(jaxserve_engine_prefix_query_tokens_total{_RATE}))",
            )
        ],
    ),
    ("Preemptions", "short", rates(preemptions="jaxserve_engine_preemptions")),
    (
        "Drafts",
        "short",
        rates(tried="jaxserve_engine_drafted_tokens", accepted="jaxserve_engine_accepted_drafts"),
    ),
    ("Compilations (none after the start)", "short", [("", "sum(jaxserve_engine_compilations_total)")]),
    ("Memory of the process", "bytes", [("{{instance}}", "process_resident_memory_bytes")]),
]


def panel(index: int, title: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    """One graph; three in a row."""
    return {
        "id": index + 1,
        "title": title,
        "type": "timeseries",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 8, "w": 8, "x": index % 3 * 8, "y": index // 3 * 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend}
            for place, (legend, query) in enumerate(queries)
        ],
    }


def render() -> str:
    """The dashboard's JSON."""
    dashboard = {
        "title": "jaxserve",
        "uid": "jaxserve",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [panel(index, *each) for index, each in enumerate(PANELS)],
    }
    return json.dumps(dashboard, indent=2) + "\n"


if __name__ == "__main__":
    main(__doc__, OUTPUT, render)
