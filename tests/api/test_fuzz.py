"""Generated requests from our own OpenAPI document: no 5xx, nothing outside the document, a server that lives on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_fakes import CONTEXT, VOCABULARY, FakeEngine, say

from jaxserve.api.rules import UNSUPPORTED
from jaxserve.api.schema.extras import ChatClientFields, ClientFields
from jaxserve.options import Limits

pytest.importorskip("schemathesis")


CONFLICTING = (
    "max_completion_tokens",
    "top_logprobs",
    "stream_options",
    "return_last_activation",
    "include_routing_matrix",
    *ClientFields.model_fields,
    *ChatClientFields.model_fields,
)
"""Fields that need or exclude others: drawn at random they are nearly always refused."""


def published(document: dict[str, Any]) -> dict[str, Any]:
    """The document, saying too that null stands for a field that isn't given."""
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        request = document["components"]["schemas"][name]
        for field, schema in request["properties"].items():
            if field not in request["required"]:
                request["properties"][field] = {"anyOf": [schema, {"type": "null"}]}
    return document


def reachable(document: dict[str, Any]) -> dict[str, Any]:
    """The document narrowed to what this server can do, so that most requests reach the engine."""
    requests = published(document)["components"]["schemas"]
    token = {"type": "integer", "minimum": 0, "maximum": VOCABULARY - 1}
    lists = [{"type": "array", "items": kind, "minItems": 1, "maxItems": 9} for kind in ({"type": "string"}, token)]
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        properties = requests[name]["properties"]
        properties["model"] = {"const": "fake"}
        for field in {*CONFLICTING, *(entry.field for entry in UNSUPPORTED)} & set(properties) - {"messages"}:
            properties[field] = {"type": "null"}
        properties["logit_bias"] = {
            "type": "object",
            "properties": {"7": {"type": "number", "minimum": -100, "maximum": 100}},
            "additionalProperties": False,
        }
    requests["CompletionRequest"]["properties"]["prompt"] = {"anyOf": [{"type": "string"}, *lists]}
    message = {"role": {"enum": ["user", "system"]}, "content": {"type": "string"}}
    requests["ChatMessage"] |= {"properties": message, "required": ["role", "content"], "additionalProperties": False}
    return document


def streamed(document: dict[str, Any]) -> dict[str, Any]:
    """The same, streams only."""
    requests = reachable(document)["components"]["schemas"]
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        requests[name]["properties"]["stream"] = {"const": True}
        requests[name]["required"].append("stream")
    return document


def fuzz(server: Any, directory: Path, shape: Callable[[dict[str, Any]], dict[str, Any]], *options: str) -> None:
    document = directory / "openapi.json"
    document.write_text(json.dumps(shape(httpx.get(server.url + "/openapi.json").json())))
    # A request that matches the schema may still be refused for what it means (fields in conflict, not built yet).
    skipped = "positive_data_acceptance"
    # Narrowed by us, the document no longer says all that is valid.
    skipped += ",negative_data_rejection" if shape is not published else ""
    plan = ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--exclude-checks", skipped, *options]
    run = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        str(document),
        "--url",
        server.url,
        "--checks",
        "all",
        *plan,
    ]
    result = subprocess.run(run, capture_output=True, text=True, cwd=directory, check=False)
    assert result.returncode == 0 or crashed_itself(result.stdout), result.stdout[-8000:] + result.stderr[-2000:]


def crashed_itself(output: str) -> bool:
    """Whether the only trouble was an index error of hypothesis's own optimiser, which long runs meet now and then."""
    alone = "= FAILURES =" not in output and re.findall(r"Runtime Error: (\d+)", output) == ["1"]
    return alone and "Errors:" in output and "hypothesis/internal/conjecture/optimiser.py" in output


def assert_alive(server: Any) -> None:
    body = {"model": "fake", "prompt": "a"}
    assert httpx.post(server.url + "/v1/completions", json=body).json()["choices"][0]["text"] == "ok"
    assert httpx.get(server.url + "/health").status_code == 200
    assert not server.engine.running, "a request was forgotten"
    assert server.engine.requests, "nothing got through to the engine"
    assert all(0 < len(request.prompt) < CONTEXT for request in server.engine.requests)


@pytest.fixture
def server(make_live: Any) -> Any:
    return make_live(FakeEngine(reply=say("ok")), limits=Limits(max_generated_tokens=5000))


@pytest.mark.parametrize(("shape", "seconds"), [(published, 10), (reachable, 8), (streamed, 6)])
def test_generated_requests(server: Any, tmp_path: Path, shape: Any, seconds: int) -> None:
    fuzz(server, tmp_path, shape, "--seed", "1", "--max-time", str(seconds))
    assert_alive(server)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("shape", "seconds"), [(published, 250), (reachable, 250), (streamed, 100)])
def test_generated_requests_for_ten_minutes(server: Any, tmp_path: Path, shape: Any, seconds: int) -> None:
    fuzz(server, tmp_path, shape, "--max-time", str(seconds))
    assert_alive(server)
