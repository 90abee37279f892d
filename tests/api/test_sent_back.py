"""Conversations as clients build them: our own answers sent back, older forms, nulls, parts, keys without a meaning."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from api_client import Api
from api_fakes import FakeEngine, PlainTemplate, say

PING: Any = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}
CALLING = "<tool_call>\n" + '{"name": "ping", "arguments": {}}' + "\n</tool_call>"
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
ASKED = {"role": "user", "content": "Hi"}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "pong"}
PLAIN_CALL = "<|assistant|>=ping{}<|end|><|tool|>(ping)#c1pong<|end|>"

ASSISTANTS: list[dict[str, Any]] = [
    {"content": None, "tool_calls": [CALL]},
    {"content": "", "tool_calls": [CALL], "refusal": None, "annotations": None, "audio": None, "function_call": None},
    {"tool_calls": [CALL], "annotations": [], "parsed": None, "reasoning_content": None, "name": None},
    {"tool_calls": [CALL], "parsed": {"any": ["thing"]}, "tool_call_id": None, "made_up": None},
    {"tool_calls": [{**CALL, "index": 0}]},
    {"tool_calls": [{**CALL, "type": None}]},
    {"tool_calls": [{**CALL, "function": {**CALL["function"], "parsed_arguments": {}}}]},
    {"tool_calls": [{**CALL, "function": {**CALL["function"], "parsed_arguments": None}}]},
    {"tool_calls": [{**CALL, "function": {"name": "ping", "arguments": None}}]},
    {"tool_calls": [CALL], "content": [{"type": "text", "text": "", "cache_control": None}]},
]


def prompt_of(api: Api, messages: list[Any], **fields: Any) -> str:
    api.chat(messages=messages, max_tokens=1, **fields)
    return api.engine.tokenizer.decode(api.last().prompt, skip_special_tokens=False)


@pytest.fixture
def calling(make_api: Any) -> Api:
    api: Api = make_api(FakeEngine(say(CALLING)), template=PlainTemplate(tools=True), chat_format="hermes")
    return api


@pytest.mark.parametrize("message", ASSISTANTS, ids=str)
def test_answers_in_every_shape_are_the_same_answer(calling: Api, message: dict[str, Any]) -> None:
    prompt = prompt_of(calling, [ASKED, {"role": "assistant", **message}, RESULT], tools=[PING])
    assert PLAIN_CALL in prompt


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{**PING, "type": None}]},
        {"tools": [{**PING, "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"type": "function", "function": {**PING["function"], "strict": None, "description": None}}]},
        {"tools": [{"type": "function", "function": {"name": "ping", "parameters": None}}]},
        {"tools": [{"type": "function", "function": {"name": "ping", "cache_control": {"type": "ephemeral"}}}]},
        {"tools": [PING], "tool_choice": {"type": "function", "function": {"name": "ping"}, "name": None}},
        {"tools": [PING], "response_format": {"type": "text", "schema": None, "json_schema": None, "grammar": None}},
        {"tools": [PING], "stream_options": None, "metadata": None, "never_heard_of": None},
        {"functions": [{**PING["function"], "description": None}], "function_call": {"name": "ping"}},
    ],
    ids=str,
)
def test_a_null_carries_no_wish_at_any_depth(calling: Api, fields: dict[str, Any]) -> None:
    message = calling.chat(messages=[ASKED], max_tokens=80, **fields)["choices"][0]["message"]
    assert (message.get("function_call") or message["tool_calls"][0]["function"])["name"] == "ping"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "audio": {"id": "a"}}, "messages.0.audio"),
        ({"role": "user", "content": None, "refusal": "No."}, "messages.0"),
        ({"role": "user", "content": [{"type": "refusal", "text": "No."}]}, "messages.0.content"),
        ({"role": "user", "content": "x", "index": 1}, "messages.0.index"),
    ],
    ids=str,
)
def test_what_has_a_meaning_is_not_dropped(api: Api, message: dict[str, Any], param: str) -> None:
    assert api.refuse("chat", 422, messages=[message])["error"]["param"].startswith(param)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "it?"}]},
            "What is\nit?",
        ),
        ({"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}, "a"),
        ({"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "I"}, {"type": "refusal", "refusal": "No."}]},
            "I\nNo.",
        ),
        ({"role": "assistant", "content": None, "refusal": "No."}, "No."),
        ({"role": "assistant", "content": "Yes.", "refusal": None}, "Yes."),
    ],
    ids=str,
)
def test_parts_of_a_message(api: Api, message: dict[str, Any], shown: str) -> None:
    assert f"<|{message['role']}|>{shown}<|end|>" in prompt_of(api, [ASKED, message])


@pytest.mark.parametrize("name", [{"name": "ping"}, {"name": "ping", "tool_call_id": None}], ids=str)
def test_older_calls_and_results_are_those_of_tools(calling: Api, name: dict[str, Any]) -> None:
    older = {"role": "assistant", "content": None, "function_call": {"name": "ping", "arguments": "{}"}}
    prompt = prompt_of(
        calling, [ASKED, older, {"role": "function", "content": "pong", **name}], functions=[PING["function"]]
    )
    assert "<|assistant|>=ping{}<|end|><|tool|>(ping)" in prompt
    assert "pong<|end|>" in prompt


@pytest.mark.parametrize("how", ["object", "model_dump", "dump without nulls", "stream"])
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_answers_of_the_openai_client_come_back(make_live: Any, how: str, choice: str) -> None:
    server = make_live(FakeEngine(say(CALLING)), template=PlainTemplate(tools=True), chat_format="hermes")
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=20)
    wanted: Any = {"model": "fake", "tools": [PING], "tool_choice": choice}
    with client.chat.completions.stream(messages=[ASKED], **wanted) as stream:
        streamed = stream.get_final_completion().choices[0].message
    answer = client.chat.completions.create(messages=[ASKED], **wanted).choices[0].message
    back = {
        "object": answer,
        "model_dump": answer.model_dump(),
        "dump without nulls": answer.model_dump(exclude_none=True),
        "stream": streamed.model_dump(),
    }[how]
    calls = streamed.tool_calls if how == "stream" else answer.tool_calls
    assert calls is not None
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "pong"}
    client.chat.completions.create(messages=[ASKED, back, result], **wanted)
    prompt = server.engine.tokenizer.decode(server.engine.requests[-1].prompt, skip_special_tokens=False)
    assert "<|assistant|>=ping{}<|end|><|tool|>" in prompt


@pytest.mark.parametrize("arguments", ['{"city": "Ro', "not JSON", "[1]", '"x"', "", " ", "null", '{"a": 1} tail'])
def test_malformed_arguments_are_accepted(calling: Api, arguments: str) -> None:
    call = {**CALL, "function": {"name": "ping", "arguments": arguments}}
    prompt = prompt_of(calling, [ASKED, {"role": "assistant", "tool_calls": [call]}, RESULT], tools=[PING])
    assert "<|assistant|>=ping" in prompt
    assert "pong<|end|>" in prompt


@pytest.mark.parametrize("choice", ["required", "auto"])
def test_answers_cut_anywhere_come_back(make_live: Any, choice: str) -> None:
    server = make_live(FakeEngine(say(CALLING)), template=PlainTemplate(tools=True), chat_format="hermes")
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=20)
    wanted: Any = {"model": "fake", "tools": [PING], "tool_choice": choice}
    for cut in range(1, 44, 6):
        answer = client.chat.completions.create(messages=[ASKED], max_tokens=cut, **wanted).choices[0].message
        results = [{"role": "tool", "tool_call_id": c.id, "content": "pong"} for c in answer.tool_calls or ()]
        again: Any = [ASKED, answer.model_dump(), *results, ASKED]
        assert client.chat.completions.create(messages=again, max_tokens=1, **wanted).choices
