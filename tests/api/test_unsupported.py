"""Fields of the contract whose effect isn't built: refused by name unless they ask for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from api_client import Api

from jaxserve.api.rules import UNSUPPORTED
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])

VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA", "max_frames": 4, "sample_fps": 0.5}}
NEUTRAL: list[dict[str, Any]] = [
    {"response_format": {"type": "text"}},
    {"response_format": None, "reasoning_effort": None, "speculation": None, "prediction": None},
    {"speculation": "", "prediction": ""},
]
NEUTRAL_CHAT: list[dict[str, Any]] = [
    {"tools": [], "tool_choice": "auto", "functions": [], "function_call": "auto"},
    {"tool_choice": "none", "function_call": "none", "parallel_tool_calls": True},
    {"tools": None, "tool_choice": None, "functions": None, "function_call": None, "parallel_tool_calls": None},
    {"reasoning_history": None, "thinking": None},
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "tool_calls": []}]},
]


def assert_refused(body: dict[str, Any], field: str) -> None:
    assert body["error"]["param"] == field
    assert "not supported by this server yet" in body["error"]["message"]
    assert body["detail"][0]["loc"] == ["body", field]


def test_video_is_refused_by_its_name(api: Api) -> None:
    body = api.refuse("chat", 422, messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, VIDEO]}])
    assert_refused(body, "messages")
    assert "video" in body["error"]["message"]


@pytest.mark.proves("tool_choice", "function_call", "parallel_tool_calls")
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tool_choice", "required", "needs tools"),
        ("tool_choice", "any", "needs tools"),
        ("tool_choice", {"type": "function", "name": "f"}, "needs tools"),
        ("function_call", {"name": "f"}, "needs functions"),
        ("parallel_tool_calls", "yes", "valid boolean"),
    ],
)
def test_a_choice_of_tools_needs_tools(api: Api, field: str, value: Any, message: str) -> None:
    error = api.refuse("chat", 422, **{field: value})["error"]
    assert error["param"] == field
    assert message in error["message"]


@BOTH
@pytest.mark.parametrize("fields", NEUTRAL)
def test_asking_for_nothing_is_answered(api: Api, endpoint: str, fields: dict[str, Any]) -> None:
    api.send(endpoint, **fields)


@pytest.mark.parametrize("fields", NEUTRAL_CHAT)
def test_asking_for_nothing_in_chat_is_answered(api: Api, fields: dict[str, Any]) -> None:
    api.chat(**fields)


def test_the_table_names_real_fields() -> None:
    fields = set(ChatCompletionRequest.model_fields) | set(CompletionRequest.model_fields)
    assert {entry.field for entry in UNSUPPORTED} <= fields


@pytest.mark.parametrize("name", ["ChatCompletionRequest", "CompletionRequest"])
def test_every_field_has_a_test_that_proves_it(request: pytest.FixtureRequest, name: str) -> None:
    schema = {"ChatCompletionRequest": ChatCompletionRequest, "CompletionRequest": CompletionRequest}[name]
    proved = {field for item in request.session.items for mark in item.iter_markers("proves") for field in mark.args}
    if len({item.path for item in request.session.items}) < 5:
        pytest.skip("only a few of the tests were collected")
    assert set(schema.model_fields) - proved == set()
