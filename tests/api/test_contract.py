"""Our OpenAPI document beside the published contract: no property missing, none of another type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from api_client import Api
from api_fakes import model_info
from fastapi.openapi.utils import get_openapi

from jaxserve.api.openapi import openapi_document, schemas
from jaxserve.api.schema.extras import ChatClientFields, ClientFields
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest
from jaxserve.api.settings import Settings

EXTENSIONS = {
    "return_last_activation",
    "include_routing_matrix",
    "stream_options",
    "prompt_cache_key",
    "prompt_cache_max_len",
    "safe_tokenization",
    "service_tier",
    "store",
    *ClientFields.model_fields,
    *ChatClientFields.model_fields,
}
"""Request fields beyond the published chat contract."""
WIDER = {"LogProbs.token_logprobs[]": {"number", "null"}}
"""Where we knowingly allow more: the first token of an echoed prompt has no legacy score."""
MORE_VALUES = {"ChatCompletionRequest.reasoning_effort": {"minimal", "xhigh", "max"}}
"""Values that clients of other services send."""


@pytest.fixture(scope="module")
def contract(shared_dir: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((shared_dir / "spec" / "chat_completions.openapi.yaml").read_text())
    return document


class Comparison:
    """Walks two schemas together and says where they differ."""

    def __init__(self, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
        self.theirs, self.ours = theirs, ours
        self.seen: set[tuple[str, str]] = set()

    def compare(self, theirs: Any, ours: Any, path: str) -> Iterator[str]:
        left, right = list(self.members(theirs, self.theirs)), list(self.members(ours, self.ours))
        kinds = [set().union(*(self.kinds(m) for m in side)) for side in (left, right)]
        if kinds[0] != kinds[1] and WIDER.get(path) != kinds[1]:
            yield f"{path}: {sorted(kinds[0])} is {sorted(kinds[1])} here"
        values = [
            {str(v) for m in side for v in m.get("enum", [m["const"]] if "const" in m else [])}
            for side in (left, right)
        ]
        if values[0] and values[0] != values[1] - MORE_VALUES.get(path, set()):
            yield f"{path}: values {values[0]} are {values[1]} here"
        for kind in ("object", "array"):
            yield from self.inside(kind, left, right, path)

    def inside(self, kind: str, left: list[Any], right: list[Any], path: str) -> Iterator[str]:
        ours = [m for m in right if m.get("type") == kind]
        for member in (m for m in left if m.get("type") == kind):
            if kind == "array":
                yield from min(
                    (list(self.compare(member["items"], m["items"], path + "[]")) for m in ours), key=len, default=[]
                )
            elif "properties" in member:
                name = member["title"]
                partners = [m for m in ours if "properties" in m and self.matches(member, m)]
                if not partners:
                    yield f"{path}: no object like {name}"
                elif (name, partners[0]["title"]) not in self.seen:
                    self.seen.add((name, partners[0]["title"]))
                    yield from self.objects(member, partners[0], name)

    @staticmethod
    def matches(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
        """Whether two union members mean the same: the one whose constants agree."""
        constants = [{n: p["const"] for n, p in m["properties"].items() if "const" in p} for m in (theirs, ours)]
        overlap = set(theirs["properties"]) & set(ours["properties"])
        return bool(overlap) and all(constants[1].get(n, v) == v for n, v in constants[0].items())

    def objects(self, theirs: dict[str, Any], ours: dict[str, Any], name: str) -> Iterator[str]:
        for prop, schema in theirs["properties"].items():
            if prop not in ours["properties"]:
                yield f"{name}.{prop} is missing"
                continue
            mine = ours["properties"][prop]
            yield from self.compare(schema, mine, f"{name}.{prop}")
            if schema.get("default") is not None and mine.get("default") != schema["default"] and "object" not in prop:
                yield f"{name}.{prop}: default {schema['default']!r} is {mine.get('default')!r} here"
            if bool(schema.get("deprecated")) != bool(mine.get("deprecated")):
                yield f"{name}.{prop}: deprecated differs"
        if set(theirs.get("required", [])) != set(ours.get("required", [])):
            yield f"{name}: required {theirs.get('required')} is {ours.get('required')} here"
        if theirs.get("additionalProperties") != ours.get("additionalProperties"):
            yield f"{name}: additionalProperties differs"

    def members(self, schema: Any, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "$ref" in schema:
            yield from self.members(components[schema["$ref"].rsplit("/", 1)[1]], components)
        elif "anyOf" in schema or "oneOf" in schema:
            for member in schema.get("anyOf", schema.get("oneOf")):
                yield from self.members(member, components)
        else:
            yield schema

    @staticmethod
    def kinds(schema: dict[str, Any]) -> set[str]:
        return {schema["type"]} if "type" in schema else {"string"} if "const" in schema or "enum" in schema else set()


@pytest.mark.parametrize("name", ["ChatCompletionRequest", "ChatCompletionResponse", "ChatCompletionStreamResponse"])
def test_every_property_of_the_contract_is_here_with_its_type(contract: dict[str, Any], name: str) -> None:
    theirs = contract["components"]["schemas"]
    found = list(Comparison(theirs, schemas()).objects(theirs[name], schemas()[name], name))
    # Typed dictionaries have no defaults; the type of a tool call is always sent.
    allowed = ["ChatCompletionMessageToolCall.type: default 'function' is None here"] if "Response" in name else []
    assert found == allowed


def test_the_comparison_sees_differences(contract: dict[str, Any]) -> None:
    theirs = contract["components"]["schemas"]
    ours = schemas()
    request = ours["ChatCompletionRequest"]
    properties = {k: v for k, v in request["properties"].items() if k != "top_k"}
    broken = {**request, "properties": {**properties, "user": {"type": "integer"}}, "required": ["model"]}
    found = "\n".join(Comparison(theirs, ours).objects(theirs["ChatCompletionRequest"], broken, "R"))
    assert "R.top_k is missing" in found
    assert "R.user: ['null', 'string'] is ['integer'] here" in found
    assert "R: required" in found


def test_the_chat_request_has_all_fields_and_only_named_extensions(contract: dict[str, Any]) -> None:
    published = set(contract["components"]["schemas"]["ChatCompletionRequest"]["properties"])
    assert len(published) == 43
    assert set(ChatCompletionRequest.model_fields) - published == EXTENSIONS


def test_ranges_of_the_contract(contract: dict[str, Any]) -> None:
    """The published ranges stand in the descriptions, as `Required range: a <= x <= b`."""
    ours = schemas()["ChatCompletionRequest"]["properties"]
    checked = 0
    for name, schema in contract["components"]["schemas"]["ChatCompletionRequest"]["properties"].items():
        found = re.search(r"Required range: `(-?\d+) <= x <= (-?\d+)`", schema.get("description", ""))
        if found is None:
            continue
        member = next(m for m in ours[name].get("anyOf", [ours[name]]) if "minimum" in m)
        assert (member["minimum"], member["maximum"]) == (int(found[1]), int(found[2])), name
        checked += 1
    assert checked >= 9


def test_completions_have_every_documented_field(shared_dir: Path) -> None:
    lines = (shared_dir / "spec" / "completions.txt").read_text().splitlines()
    start, end = lines.index("Body"), lines.index("Response")
    words = {line for line in lines[start:end] if line.isidentifier() and line.islower()}
    values = {"required", "string", "integer", "boolean", "error", "truncate", "low", "medium", "high", "none"}
    assert words - set(CompletionRequest.model_fields) <= values
    assert {"prompt", "images", "prompt_cache_max_len", "echo_last", "logit_bias", "return_token_ids"} <= words


def test_completions_answer_with_every_documented_property(shared_dir: Path) -> None:
    """The page shows one answer with every property that there is."""
    text = (shared_dir / "spec" / "completions.txt").read_text()
    start = text.index("{\n")
    example, _ = json.JSONDecoder().raw_decode(text, start)
    validator = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/CompletionResponse", "components": {"schemas": schemas()}}
    )
    assert [error.message for error in validator.iter_errors(example)] == []
    assert example["choices"][0]["raw_output"]["completion_logprobs"]["content"][0]["extra_tokens"] == [123]


def test_the_document_is_complete(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    assert document == openapi_document(Settings(model=model_info()))
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        for field, schema in document["components"]["schemas"][name]["properties"].items():
            assert schema.get("description"), field
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert "200" in operation["responses"], path
    app: Any = api.http.app
    served = get_openapi(title="", version="", routes=app.routes)["paths"]
    assert {path.replace("{model_id:path}", "{model_id}") for path in served} == set(document["paths"])
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    jsonschema.Draft202012Validator.check_schema({"components": document["components"]})


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_the_examples_of_the_document_are_answered(api: Api, endpoint: str) -> None:
    path = "/v1/chat/completions" if endpoint == "chat" else "/v1/completions"
    body = api.http.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        assert api.post(path, {**example["value"], "model": "fake"}).status_code == 200
    schema = ChatCompletionRequest if endpoint == "chat" else CompletionRequest
    for name, info in schema.model_fields.items():
        for example in info.examples or []:
            needs = {"logprobs": True} if name == "top_logprobs" else {}
            value = "fake" if name == "model" else example
            assert api.post(path, {**api.body(endpoint), **needs, name: value}).status_code == 200, name
