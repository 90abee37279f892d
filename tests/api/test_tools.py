"""Tools and reasoning: what the model is shown, what the engine follows, what the client gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from api_client import Api
from api_fakes import THINK, UNTHINK, FakeEngine, PlainTemplate, ids_of, say

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 5}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "Weather", "parameters": PARAMETERS, "strict": True}
OTHER = {"name": "ping", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}
TOOLS = [{"type": "function", "function": FUNCTION}, {"type": "function", "function": OTHER}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call>'

Make = Callable[..., Api]


def qwen(make_api: Make, text: str, **template: Any) -> Api:
    return make_api(FakeEngine(reply=say(text)), chat_format="qwen3", template=PlainTemplate(tools=True, **template))


def called(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert len({call["id"] for call in calls}) == len(calls)
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


@pytest.mark.proves("tools")
def test_a_call_is_read_from_the_text(make_api: Make) -> None:
    api = qwen(make_api, "Well. " + CALL)
    answer = api.chat(tools=TOOLS)
    assert called(answer) == [("weather", {"city": "Rome", "days": 3})]
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"].strip() == "Well."
    assert "weather,ping" in bytes(t for t in api.last().prompt if t < 256).decode()
    assert api.last().skip_special_tokens is False


def test_a_stream_brings_a_call_when_it_is_complete(make_api: Make) -> None:
    chunks = qwen(make_api, CALL).stream("chat", tools=TOOLS)
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert (pieces[0]["function"]["name"], pieces[0]["index"], pieces[0]["type"]) == ("weather", 0, "function")
    assert len(pieces) == 1
    assert json.loads(pieces[0]["function"]["arguments"]) == {"city": "Rome", "days": 3}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.proves("tool_choice")
@pytest.mark.parametrize("chat_format", ["qwen3", "generic", "llama3"])
@pytest.mark.parametrize(
    "choice",
    ["required", "any", {"type": "function", "function": {"name": "weather"}}, {"type": "function", "name": "weather"}],
)
def test_a_forced_call_is_valid_whatever_the_model_wants(make_api: Make, chat_format: str, choice: Any) -> None:
    api = make_api(FakeEngine(reply=say("no")), chat_format=chat_format, template=PlainTemplate(tools=True))
    answer = api.chat(tools=TOOLS[:1], tool_choice=choice, temperature=2, max_tokens=300, parallel_tool_calls=False)
    [(name, arguments)] = called(answer)
    assert name == "weather"
    jsonschema.validate(arguments, PARAMETERS)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_choice_none_shows_no_tools_and_finds_no_calls(make_api: Make) -> None:
    api = qwen(make_api, CALL)
    message = api.chat(tools=TOOLS, tool_choice="none")["choices"][0]["message"]
    assert "tool_calls" not in message
    assert api.last().constraint is None
    assert b"weather" not in bytes(t for t in api.last().prompt if t < 256)


def test_auto_holds_arguments_to_the_schema(make_api: Make) -> None:
    api = qwen(make_api, CALL.replace("3", "77"))
    [(_, arguments)] = called(api.chat(tools=TOOLS))
    jsonschema.validate(arguments, PARAMETERS)


@pytest.mark.proves("parallel_tool_calls")
def test_parallel_calls_can_be_forbidden(make_api: Make) -> None:
    api = qwen(make_api, f"{CALL}\n{CALL}")
    assert len(called(api.chat(tools=TOOLS))) == 2
    assert len(called(api.chat(tools=TOOLS, parallel_tool_calls=False))) == 1


@pytest.mark.proves("functions", "function_call")
def test_functions_are_tools_under_their_older_name(make_api: Make) -> None:
    api = qwen(make_api, f"{CALL}\n{CALL}")
    for choice in ({"name": "weather"}, "auto", None):
        fields = {"functions": [FUNCTION], "function_call": choice}
        answer = api.chat(**fields)["choices"][0]
        assert answer["finish_reason"] == "function_call"
        assert answer["message"]["content"] is None
        assert "tool_calls" not in answer["message"]
        assert answer["message"]["function_call"]["name"] == "weather"
        assert json.loads(answer["message"]["function_call"]["arguments"])["city"] == "Rome"
        deltas = [choice["delta"] for chunk in api.stream("chat", **fields) for choice in chunk["choices"]]
        pieces = [delta["function_call"] for delta in deltas if "function_call" in delta]
        assert [piece["name"] for piece in pieces if "name" in piece] == ["weather"]
        assert "".join(piece["arguments"] for piece in pieces) == answer["message"]["function_call"]["arguments"]
        assert not any("tool_calls" in delta for delta in deltas)


@pytest.mark.parametrize("parallel", [True, False, None])
def test_a_named_tool_is_called_exactly_once(make_api: Make, parallel: bool | None) -> None:
    api = qwen(make_api, f"{CALL}\n{CALL}")
    named = {"type": "function", "function": {"name": "weather"}}
    assert len(called(api.chat(tools=TOOLS, tool_choice=named, parallel_tool_calls=parallel))) == 1
    assert len(called(api.chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=parallel))) == 2 - (
        parallel is False
    )


def test_earlier_calls_and_their_results_are_rendered(make_api: Make) -> None:
    api = qwen(make_api, "Sunny")
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    ]
    assert api.chat(messages=history, tools=TOOLS)["choices"][0]["message"]["content"] == "Sunny"
    prompt = bytes(t for t in api.last().prompt if t < 256).decode()
    assert "=weather" in prompt
    assert "#c1sun" in prompt
    cut = {**call, "function": {"name": "weather", "arguments": '{"city": "Ro'}}
    api.chat(messages=[history[0], {"role": "assistant", "tool_calls": [cut]}, history[2]], tools=TOOLS)
    assert '=weather{"city": "Ro' in bytes(t for t in api.last().prompt if t < 256).decode()
    assert api.refuse("chat", 422, messages=[history[0], history[2]])["error"]["param"] == "messages.1"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools.1.function"),
        ({"tools": TOOLS, "functions": [FUNCTION]}, "functions"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "none_such"}}, "tool_choice"),
        ({"functions": [FUNCTION], "function_call": {"name": "none_such"}}, "function_call"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools.0"),
    ],
)
def test_bad_tools_are_refused_by_name(api: Api, fields: dict[str, Any], field: str) -> None:
    assert api.refuse("chat", 422, **fields)["error"]["param"].startswith(field)


def test_reasoning_is_told_from_the_answer(make_api: Make) -> None:
    api = qwen(make_api, "<think>\nhm\n</think>\n\nYes")
    assert api.chat()["choices"][0]["message"] == {"role": "assistant", "content": "Yes", "reasoning_content": "hm"}


def test_a_model_of_unknown_format_is_shown_as_it_writes(make_api: Make) -> None:
    api = make_api(FakeEngine(reply=say("a\n (think) <tool_calls> b\n")))
    assert api.chat()["choices"][0]["message"]["content"] == "a\n (think) <tool_calls> b\n"
    assert api.last().skip_special_tokens is True


@pytest.mark.proves("reasoning_effort", "thinking")
@pytest.mark.parametrize("opens", [True, False])
def test_a_budget_is_kept_exactly(make_api: Make, opens: bool) -> None:
    text = "x" * 40
    api = qwen(make_api, text if opens else "<think>" + text, opens_reasoning=opens)
    choice = api.chat(reasoning_effort=9, return_token_ids=True, max_tokens=30)["choices"][0]
    ids = choice["token_ids"]
    start = 0 if opens else ids.index(THINK) + 1
    assert ids.index(UNTHINK) - start == 9
    assert choice["message"]["reasoning_content"] == "x" * 8  # the ninth is the line break before the marker
    assert choice["message"]["content"].startswith("xxx")
    big = api.chat(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=30)["choices"][0]
    assert "x" * 20 in big["message"]["reasoning_content"]


def test_reasoning_off_is_said_to_the_template(make_api: Make) -> None:
    api = qwen(make_api, "x", opens_reasoning=True)
    for fields in ({"reasoning_effort": "none"}, {"reasoning_effort": False}, {"thinking": {"type": "disabled"}}):
        api.chat(**fields)
        assert api.last().prompt[-1] != THINK
    api.chat()
    assert api.last().prompt[-1] == THINK


def test_a_budget_closes_the_reasoning_of_a_completion(make_api: Make) -> None:
    api = qwen(make_api, "<think>" + "x" * 40)
    text = api.complete(prompt="Hi", reasoning_effort=5, max_tokens=30, return_token_ids=True)["choices"][0]
    assert text["token_ids"].index(UNTHINK) - text["token_ids"].index(THINK) - 1 == 5
    off = api.complete(prompt="Hi", reasoning_effort="none", max_tokens=30, return_token_ids=True)["choices"][0]
    same = api.complete(prompt="Hi", thinking={"type": "disabled"}, max_tokens=30, return_token_ids=True)["choices"][0]
    assert same["token_ids"] == off["token_ids"]
    assert off["token_ids"][:2] == [THINK, UNTHINK]


@pytest.mark.proves("reasoning_history")
def test_earlier_reasoning_is_dropped_on_demand(make_api: Make) -> None:
    api = qwen(make_api, "x")
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "HM"},
        {"role": "user", "content": "c"},
    ]
    api.chat(messages=history)
    assert "HM" in bytes(t for t in api.last().prompt if t < 256).decode()
    api.chat(messages=history, reasoning_history="disabled")
    assert "HM" not in bytes(t for t in api.last().prompt if t < 256).decode()
    assert "interleaved" in api.refuse("chat", 422, reasoning_history="preserved")["error"]["message"]


@pytest.mark.parametrize(
    ("chat_format", "refused"),
    [
        ("gpt_oss", ["none", False, 50]),
        ("minimax_m2", ["none", False, True, 50]),
        ("deepseek_r1", ["none", False]),
        ("qwen3", [0, -1]),
        ("glm45", [0]),
    ],
)
def test_each_model_refuses_what_it_can_not_do(make_api: Make, chat_format: str, refused: list[Any]) -> None:
    api = make_api(FakeEngine(reply=say("x")), chat_format=chat_format, template=PlainTemplate(tools=True))
    for effort in refused:
        error = api.refuse("chat", 422, reasoning_effort=effort)["error"]
        assert error["param"] == "reasoning_effort"
        if isinstance(effort, str):
            assert f"Invalid reasoning effort: {effort}" in error["message"]
    for effort in ("low", "medium", "high"):
        api.chat(reasoning_effort=effort)


def test_history_modes_of_a_model_that_has_all(make_api: Make) -> None:
    api = make_api(FakeEngine(reply=say("x")), chat_format="glm47", template=PlainTemplate(tools=True))
    call = {"id": "c", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "OLD"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "reasoning_content": "NEW", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "pong"},
    ]
    shown = {}
    for mode in ("disabled", "interleaved", "preserved"):
        api.chat(messages=history, reasoning_history=mode)
        prompt = bytes(t for t in api.last().prompt if t < 256).decode()
        shown[mode] = [word for word in ("OLD", "NEW") if word in prompt]
    assert shown == {"disabled": [], "interleaved": ["NEW"], "preserved": ["OLD", "NEW"]}


def test_reasoning_counts_as_completion(make_api: Make) -> None:
    answer = qwen(make_api, "<think>hm</think>\n\nYes").chat()
    assert answer["usage"]["completion_tokens"] == len(ids_of("<think>hm</think>\n\nYes")) + 1


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_model_that_does_not_reason_says_so(api: Api, endpoint: str) -> None:
    for effort in ("none", False):
        api.send(endpoint, reasoning_effort=effort)
    for effort in ("low", True, 5):
        error = api.refuse(endpoint, 422, reasoning_effort=effort)["error"]
        assert error["param"] == "reasoning_effort"
        assert "does not reason" in error["message"] or "supports" in error["message"]


def test_structured_answers_come_after_the_reasoning(make_api: Make) -> None:
    api = qwen(make_api, '<think>hm</think>\n\n{"a":1}')
    wanted = {"type": "json_schema", "json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    message = api.chat(response_format=wanted)["choices"][0]["message"]
    assert (message["reasoning_content"], json.loads(message["content"])) == ("hm", {"a": 1})
    assert ids_of("<think>") == [THINK]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("fields", "reason", "names"),
    [
        ({"stop": ['"Rome"']}, "stop", []),
        ({"stop": ["weather"]}, "stop", []),
        ({"max_tokens": 60}, "length", []),
        ({"stop": ["</tool_call>"]}, "tool_calls", ["weather"]),
        ({"stop": ["\n</tool_call>"]}, "tool_calls", ["weather"]),
        ({"stop": ["ping"]}, "tool_calls", ["weather"]),
        ({"max_tokens": 100}, "length", ["weather"]),
    ],
)
def test_half_a_call_is_none(make_api: Make, streamed: bool, fields: Any, reason: str, names: list[str]) -> None:
    api = qwen(make_api, "Well. " + CALL + '\n<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>')
    if streamed:
        choices = [c["choices"][0] for c in api.stream("chat", tools=TOOLS, **fields) if c["choices"]]
        calls = [call for c in choices for call in c["delta"].get("tool_calls", ())]
        content = "".join(c["delta"].get("content") or "" for c in choices)
        finish = choices[-1]["finish_reason"]
    else:
        choice = api.chat(tools=TOOLS, **fields)["choices"][0]
        calls, content = choice["message"].get("tool_calls", []), choice["message"]["content"]
        finish = choice["finish_reason"]
    assert [call["function"]["name"] for call in calls] == names
    assert all(json.loads(call["function"]["arguments"]) == {"city": "Rome", "days": 3} for call in calls)
    assert (finish, content.strip()) == (reason, "Well.")


@pytest.mark.parametrize("chat_format", ["llama3", "generic", "hermes", "mistral", "llama3_pythonic", "glm45"])
@pytest.mark.parametrize("max_tokens", [1, 3, 9, 20, 25])
def test_a_forced_call_that_is_cut_leaks_nothing(make_api: Make, chat_format: str, max_tokens: int) -> None:
    api = make_api(FakeEngine(reply=say("no")), chat_format=chat_format, template=PlainTemplate(tools=True))
    choice = api.chat(tools=TOOLS[:1], tool_choice="required", max_tokens=max_tokens)["choices"][0]
    assert not choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(
    "chat_format", ["llama3", "generic", "hermes", "mistral", "llama3_pythonic", "glm45", "kimi_k2"]
)
def test_a_named_tool_is_called_once(make_api: Make, chat_format: str) -> None:
    reply = say('<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>\n' * 3)
    api = make_api(FakeEngine(reply=reply), chat_format=chat_format, template=PlainTemplate(tools=True))
    chosen = {"type": "function", "function": {"name": "ping"}}
    answer = api.chat(tools=TOOLS, tool_choice=chosen, parallel_tool_calls=True, max_tokens=300)
    assert called(answer) == [("ping", {})]


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_what_is_not_enforced_of_a_tool_is_named_in_a_header(make_api: Make, choice: str) -> None:
    look_around = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)b"}}}
    bad = {"type": "function", "function": {"name": "bad", "parameters": look_around}}
    api = qwen(make_api, CALL)
    answer = api.post("/v1/chat/completions", api.chat_body(tools=[*TOOLS, bad], tool_choice=choice))
    assert answer.status_code == 200
    assert answer.headers["x-jaxserve-relaxed-tools"].startswith("bad%3A")
    assert "look-around" in answer.headers["x-jaxserve-relaxed-tools"]
    plain = api.post("/v1/chat/completions", api.chat_body(tools=TOOLS, tool_choice=choice))
    assert "x-jaxserve-relaxed-tools" not in plain.headers
    strict = {"type": "function", "function": {**bad["function"], "strict": True}}
    refused = api.refuse("chat", 422, tools=[*TOOLS, strict], tool_choice=choice)["error"]
    assert refused["param"] == "tools.2.function.parameters"
    assert "'bad' is strict" in refused["message"]
    assert "look-around" in refused["message"]
