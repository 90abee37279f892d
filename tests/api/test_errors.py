"""Whatever is wrong with a request is said by name, in one shape, before the engine sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from api_client import CHAT, COMPLETIONS, Api, check, events
from api_fakes import FakeEngine, say

from jaxserve.errors import EngineStopped, Overloaded, RequestFailed
from jaxserve.options import Limits

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
MakeApi = Callable[..., Api]

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": [1]}, "temperature"),
    ({"top_p": 1.01}, "top_p"),
    ({"top_p": "0.5"}, "top_p"),
    ({"min_p": -0.5}, "min_p"),
    ({"typical_p": 2}, "typical_p"),
    ({"top_k": 101}, "top_k"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"top_k": True}, "top_k"),
    ({"frequency_penalty": 2.5}, "frequency_penalty"),
    ({"presence_penalty": -2.5}, "presence_penalty"),
    ({"repetition_penalty": 2.5}, "repetition_penalty"),
    ({"repetition_penalty": -1}, "repetition_penalty"),
    ({"mirostat_target": 0}, "mirostat_target"),
    ({"mirostat_lr": -1}, "mirostat_lr"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": "2"}, "n"),
    ({"seed": 1.5}, "seed"),
    ({"seed": "1"}, "seed"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop": "x" * 513}, "stop"),
    ({"logprobs": 6}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": "true"}, "logprobs"),
    ({"logprobs": 1.5}, "logprobs"),
    ({"top_logprobs": 1}, "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 1}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
    ({"echo": "yes"}, "echo"),
    ({"echo_last": -1}, "echo_last"),
    ({"ignore_eos": 1}, "ignore_eos"),
    ({"stream": "true"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"other": 1}}, "stream_options"),
    ({"context_length_exceeded_behavior": "explode"}, "context_length_exceeded_behavior"),
    ({"prompt_truncate_len": 0}, "prompt_truncate_len"),
    ({"prompt_cache_max_len": -1}, "prompt_cache_max_len"),
    ({"prompt_cache_isolation_key": 1}, "prompt_cache_isolation_key"),
    ({"user": 7}, "user"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"metadata": "a"}, "metadata"),
    ({"return_token_ids": 1}, "return_token_ids"),
    ({"raw_output": "x"}, "raw_output"),
    ({"service_tier": "fast"}, "service_tier"),
    ({"store": True}, "store"),
    ({"frobnicate": 1}, "frobnicate"),
    ({"model": 5}, "model"),
    ({"model": ""}, "model"),
]
WRONG_CHAT: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0"),
    ({"messages": [{"role": "user", "content": [{"type": "audio", "text": "x"}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": "x", "mood": "good"}]}, "messages.0.mood"),
    ({"messages": [{"role": "user", "content": "x", "name": "a b"}]}, "messages.0.name"),
    ({"messages": [{"role": "user", "content": "x"}] * 4097}, "messages"),
    ({"prompt": "x"}, "prompt"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"tools": [{"type": "function"}]}, "tools.0"),
    ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": "y" * 300_000}}}]}, "tools"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": "x" * 300_000}}, "response_format"),
    ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking"),
    ({"thinking": {"type": "enabled"}, "reasoning_effort": "low"}, "thinking"),
    ({"reasoning_effort": 0}, "reasoning_effort"),
    ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ({"prediction": {"type": "content"}}, "prediction"),
    ({"speculation": [-1]}, "speculation"),
]
WRONG_COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": {}}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": [1.5]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [270]}, "prompt.0"),
    ({"prompt": [[1], [2, 270]]}, "prompt.1.1"),
    ({"prompt": [[1], "a"]}, "prompt"),
    ({"prompt": ["x"] * 257}, "prompt"),
    ({"prompt": ["x"] * 200, "n": 2}, "n"),
    ({"messages": []}, "messages"),
    ({"suffix": "x"}, "suffix"),
    ({"best_of": 2}, "best_of"),
]


def assert_names(body: dict[str, Any], param: str) -> None:
    field = param.split(".")[0]
    assert body["error"]["param"].startswith(param), body
    assert field in body["error"]["message"]
    assert any(field in map(str, item["loc"]) for item in body["detail"]), body


@BOTH
@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_wrong_fields(api: Api, endpoint: str, fields: dict[str, Any], param: str) -> None:
    assert_names(api.refuse(endpoint, 422, **fields), param)
    assert api.engine.requests == []


@pytest.mark.parametrize(("fields", "param"), WRONG_CHAT)
def test_wrong_chat_fields(api: Api, fields: dict[str, Any], param: str) -> None:
    assert_names(api.refuse("chat", 422, **fields), param)
    assert api.engine.requests == []


@pytest.mark.parametrize(("fields", "param"), WRONG_COMPLETIONS)
def test_wrong_completion_fields(api: Api, fields: dict[str, Any], param: str) -> None:
    assert_names(api.refuse("completions", 422, **fields), param)
    assert api.engine.requests == []


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[1]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"model": "fake", "temperature": NaN}',
        b'{"model": "fake", "temperature": Infinity}',
        b'{"model": "fake", "temperature": 1e999}',
        b'{"model": "fake", "temperature": -Infinity}',
        b'{"model": "fake", "user": "\\ud800"}',
        b'{"model": "fake", "seed": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_malformed_json(api: Api, path: str, body: bytes) -> None:
    response = api.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert "body" in response.json()["error"]["message"]
    assert response.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_named(api: Api, encoding: str) -> None:
    body = json.dumps({"model": "fake", "prompt": "a"}).encode(encoding)
    response = api.post(COMPLETIONS, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert "byte order mark" in response.json()["error"]["message"]


@BOTH
def test_missing_fields(api: Api, endpoint: str) -> None:
    path = CHAT if endpoint == "chat" else COMPLETIONS
    response = api.post(path, {})
    required = {"model", "messages" if endpoint == "chat" else "prompt"}
    assert {item["loc"][-1] for item in response.json()["detail"]} == required


def test_several_findings_are_all_named(api: Api) -> None:
    body = api.refuse("chat", 422, temperature="x", top_k=1000, zzz=1)
    assert {item["loc"][1] for item in body["detail"]} == {"temperature", "top_k", "zzz"}
    assert all(field in body["error"]["message"] for field in ("temperature", "top_k", "zzz"))


@pytest.mark.parametrize(
    ("fields", "where", "value", "meant"),
    [
        ({"topk": 5}, "topk", "5", "top_k"),
        ({"max_token": None, "maxtokens": 5.5}, "maxtokens", "5.5", "max_tokens"),
        ({"return_routing_matrix": True}, "return_routing_matrix", "true", "include_routing_matrix"),
        ({"routing_matrix_format": "parquet_v1"}, "routing_matrix_format", "parquet_v1", None),
        ({"frobnicate": "x" * 50}, "frobnicate", "x" * 39 + "…", None),
        ({"frobnicate": {"a": 1}}, "frobnicate", "{...}", None),
        ({"m" * 5000: []}, "m" * 99 + "…", "[...]", None),
        ({"response_format": {"type": "json_object", "shema": "{}"}}, "response_format.shema", "{}", "schema"),
        ({"messages": [{"role": "user", "contents": "a"}]}, "messages.0.contents", "a", "content"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameter": {}}}]},
            "tools.0.function.parameter",
            "{...}",
            "parameters",
        ),
    ],
)
def test_unknown_fields_are_told_in_the_services_words(
    api: Api, fields: dict[str, Any], where: str, value: str, meant: str | None
) -> None:
    message = api.refuse("chat", 422, **fields)["error"]["message"]
    told = f"Extra inputs are not permitted, field: '{where}', value: '{value}'"
    assert told + (f" (did you mean '{meant}'?)" if meant else "") in message
    assert ("did you mean" in message) == (meant is not None)
    assert "--lenient" in message


def test_errors_never_repeat_what_was_sent(api: Api) -> None:
    body = api.refuse("chat", 422, messages=[{"role": "user", "content": {"my": "secret"}}], user=["secret"])
    assert "secret" not in json.dumps(body)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_other_media_types(api: Api, path: str) -> None:
    response = api.post(path, content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"})
    assert response.status_code == 415
    assert response.json()["error"]["param"] == "content-type"
    body = json.dumps(api.body("chat" if path == CHAT else "completions")).encode()
    for media in ("application/json; charset=utf-8", "application/vnd.api+json", ""):
        assert api.post(path, content=body, headers={"content-type": media} if media else {}).status_code == 200


@BOTH
def test_a_body_that_is_too_large(make_api: MakeApi, endpoint: str) -> None:
    api = make_api(limits=Limits(max_body_bytes=1000))
    path = CHAT if endpoint == "chat" else COMPLETIONS
    api.send(endpoint, user="x" * 500)
    assert api.refuse(endpoint, 413, user="x" * 1000)["error"]["code"] == "request_too_large"

    def pieces() -> Any:
        yield b'{"user": "'
        for _ in range(20):
            yield b"x" * 100
        yield b'"}'

    assert api.post(path, content=pieces(), headers={"content-type": "application/json"}).status_code == 413


def test_limits_of_whole_requests(make_api: MakeApi) -> None:
    api = make_api(limits=Limits(max_generated_tokens=100, max_prompt_tokens=8))
    api.complete(["a", "b"], n=5, max_tokens=10)
    assert api.refuse("completions", 422, prompt=["a", "b"], n=5, max_tokens=11)["error"]["param"] == "max_tokens"
    assert api.refuse("completions", 422, prompt=["abc"] * 3)["error"]["param"] == "prompt"


def test_routes_that_do_not_exist(api: Api) -> None:
    assert api.http.get("/v1/nothing").status_code == 404
    assert api.http.get(CHAT).status_code == 405
    assert "POST" in api.http.get(CHAT).headers["allow"]
    assert api.http.post("/v1/models").status_code == 405
    for response in (api.http.get("/v1/nothing"), api.http.get(CHAT), api.http.get("/v1/models/none")):
        check(response.json(), "ErrorResponse")


@BOTH
def test_overload(make_api: MakeApi, endpoint: str) -> None:
    api = make_api(FakeEngine(overloaded_after=0), retry_after_seconds=7)
    response = api.post(CHAT if endpoint == "chat" else COMPLETIONS, api.body(endpoint))
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


def test_a_list_of_prompts_is_taken_whole_or_not_at_all(make_api: MakeApi) -> None:
    api = make_api(FakeEngine(overloaded_after=2))
    api.refuse("completions", 429, prompt=["a", "b", "c"])
    assert api.engine.aborted == [request.id for request in api.engine.requests]
    assert len(api.engine.aborted) == 2


@BOTH
@pytest.mark.parametrize("state", [{"ready": False}, {"healthy": False, "ready": False}])
def test_an_engine_that_is_not_there(make_api: MakeApi, endpoint: str, state: dict[str, bool]) -> None:
    api = make_api(FakeEngine(**state))
    api.refuse(endpoint, 503)
    assert api.http.get("/ready").status_code == 503
    assert api.http.get("/health").status_code == (200 if state.get("healthy", True) else 503)


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineStopped("the engine has died"), 503),
        (RequestFailed("no token is left to sample from"), 400),
        (Overloaded("the queue is full"), 429),
        (RuntimeError("a secret of the inside"), 500),
    ],
)
def test_failures_before_the_first_byte_keep_their_status(
    make_api: MakeApi, endpoint: str, stream: bool, error: Exception, status: int
) -> None:
    body = make_api(FakeEngine(fail=error)).refuse(endpoint, status, stream=stream)
    assert "secret" not in json.dumps(body)


@BOTH
@pytest.mark.parametrize(
    ("error", "code"), [(EngineStopped("died"), "engine_unavailable"), (RuntimeError("secret"), "internal_error")]
)
def test_failures_after_the_first_byte_end_the_stream_as_an_event(
    make_api: MakeApi, endpoint: str, error: Exception, code: str
) -> None:
    api = make_api(FakeEngine(fail=error, fail_after=4))
    response = api.post(CHAT if endpoint == "chat" else COMPLETIONS, api.body(endpoint, stream=True))
    assert response.status_code == 200
    *before, (kind, data) = events(response.text)
    assert (
        len(
            [
                1
                for _, chunk in before
                if chunk["choices"][0].get("text") or chunk["choices"][0].get("delta", {}).get("content")
            ]
        )
        == 4
    )
    assert (kind, data["error"]["code"]) == ("error", code)
    assert "secret" not in response.text
    api.refuse(endpoint, 503 if code == "engine_unavailable" else 500)


def test_an_engine_that_gives_up_is_an_error_not_an_answer(make_api: MakeApi) -> None:
    make_api(FakeEngine(finish_with="abort")).refuse("chat", 503)


def test_a_model_without_a_chat_template(make_api: MakeApi) -> None:
    api = make_api(template=False)
    assert api.refuse("chat", 400)["error"]["param"] == "messages"
    api.complete()


def test_what_the_template_refuses(api: Api) -> None:
    error = api.refuse("chat", 400, messages=[{"role": "assistant", "content": "x"}])["error"]
    assert error["code"] == "template_error"
    assert "the first message must be a user's" in error["message"]


@BOTH
def test_an_unforeseen_failure_is_a_500_in_the_same_shape(
    make_api: MakeApi, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api(FakeEngine(reply=say("x")))
    monkeypatch.setattr(api.engine, "submit", lambda *_: 1 / 0)
    body = api.refuse(endpoint, 500)
    assert body["error"]["message"] == "internal server error"


@BOTH
def test_lenient_mode_ignores_unknown_fields_and_names_them(make_api: MakeApi, endpoint: str) -> None:
    api = make_api(lenient=True)
    path = CHAT if endpoint == "chat" else COMPLETIONS
    body = api.body(endpoint, frobnicate=1, top_k=3, **{"naïve, x": 2})
    if endpoint == "chat":
        body["messages"][0]["mood"] = "good"
    response = api.post(path, body)
    assert response.status_code == 200
    ignored = set(response.headers["x-jaxserve-ignored-fields"].split(","))
    assert ignored == {"frobnicate", "na%C3%AFve%2C%20x"} | ({"messages.0.mood"} if endpoint == "chat" else set())
    assert api.last().sampling.top_k == 3
    assert "x-jaxserve-ignored-fields" not in api.post(path, api.body(endpoint)).headers
    assert "x-jaxserve-ignored-fields" in api.post(path, api.body(endpoint, frobnicate=1, stream=True)).headers
    assert api.refuse(endpoint, 422, frobnicate=1, top_k="x")["error"]["param"] == "top_k"
