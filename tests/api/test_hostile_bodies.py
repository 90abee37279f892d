"""Bodies made to be expensive to refuse: the refusal is small, names the place, and costs little."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from api_client import CHAT, COMPLETIONS, Api
from api_fakes import FakeEngine, say

from jaxserve.api.errors import ApiError
from jaxserve.api.findings import MAX_FINDINGS
from jaxserve.api.json_body import parse_json
from jaxserve.api.schema.base import MAX_KEYS

USER = {"role": "user", "content": "Hi"}
PART = {"type": "text", "text": "Hi"}
SECONDS = 5.0
"""Processor time for one refusal, generous: the same bodies took from minutes to hours before they were bounded."""
MANY = 300_000
HUGE_NAME = "k" * 1_000_000


def numbered(count: int) -> dict[str, int]:
    return {f"key {index}": index for index in range(count)}


COSTLY: dict[str, tuple[str, dict[str, Any], str]] = {
    "messages that are numbers": (CHAT, {"messages": [1] * 4000}, "messages"),
    "more messages than the limit": (CHAT, {"messages": [1] * MANY}, "messages"),
    "messages of unknown keys": (CHAT, {"messages": [{**USER, **numbered(100)}] * 3000}, "messages.0"),
    "one message of many keys": (CHAT, {"messages": [{**USER, **numbered(MANY)}]}, "messages.0"),
    "parts that are numbers": (CHAT, {"messages": [{"role": "user", "content": [1] * MANY}]}, "messages.0.content"),
    "parts of another type": (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "audio"}] * 100_000}]},
        "messages.0.content",
    ),
    "late wrong messages": (CHAT, {"messages": [USER] * 3000 + [1] * 1000}, ""),
    "calls that are numbers": (
        CHAT,
        {"messages": [{"role": "assistant", "tool_calls": [1] * MANY}]},
        "messages.0.tool_calls",
    ),
    "tools that are numbers": (CHAT, {"messages": [USER], "tools": [1] * 1000}, "tools"),
    "more tools than the limit": (CHAT, {"messages": [USER], "tools": [1] * MANY}, "tools"),
    "functions": (CHAT, {"messages": [USER], "functions": [{}] * MANY}, "functions"),
    "unknown keys": (CHAT, {"messages": [USER], **numbered(MANY)}, ""),
    "an unknown key of a megabyte": (CHAT, {"messages": [USER], HUGE_NAME: 1}, "kkk"),
    "a role of a megabyte": (CHAT, {"messages": [{"role": HUGE_NAME, "content": "x"}]}, "messages.0.role"),
    "a model of a megabyte": (CHAT, {"messages": [USER], "model": HUGE_NAME}, "model"),
    "a tool choice of a megabyte": (CHAT, {"messages": [USER], "tool_choice": HUGE_NAME}, "tool_choice"),
    "biases": (COMPLETIONS, {"prompt": "x", "logit_bias": dict.fromkeys(map(str, range(MANY)), "x")}, "logit_bias"),
    "a bias of a megabyte": (COMPLETIONS, {"prompt": "x", "logit_bias": {HUGE_NAME: 1}}, "logit_bias"),
    "metadata": (COMPLETIONS, {"prompt": "x", "metadata": numbered(MANY)}, "metadata"),
    "stops": (COMPLETIONS, {"prompt": "x", "stop": [1] * MANY}, "stop"),
    "images": (COMPLETIONS, {"prompt": "x", "images": [1] * MANY}, "images"),
    "speculation": (CHAT, {"messages": [USER], "speculation": ["x"] * MANY}, "speculation"),
    "prompts": (COMPLETIONS, {"prompt": ["x"] * MANY}, "prompt"),
    "prompts of one wrong id": (COMPLETIONS, {"prompt": [[1]] * 100_000 + [["x"]]}, "prompt"),
    "ids": (COMPLETIONS, {"prompt": [-1] * MANY}, "prompt"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_body_is_refused_at_little_cost(api: Api, name: str) -> None:
    path, fields, param = COSTLY[name]
    body = json.dumps({"model": "fake", **fields}).encode()
    began = time.process_time()
    response = api.post(path, content=body, headers={"content-type": "application/json"})
    assert time.process_time() - began < SECONDS
    assert response.status_code in (404, 422), response.text[:300]
    assert len(response.content) < 20_000
    assert (response.json()["error"]["param"] or "").startswith(param)
    assert len(response.json()["detail"]) <= MAX_FINDINGS
    assert api.engine.requests == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(8, None), (9, "and 1 more"), (50, "and 42 more"), (199, "and 191 more"), (4000, "and at least 192 more")],
)
def test_what_is_not_listed_is_counted(api: Api, wrong: int, says: str | None) -> None:
    body = api.refuse("chat", 422, messages=[1] * wrong)
    assert len(body["detail"]) == min(wrong, MAX_FINDINGS)
    assert body["error"]["message"].endswith(says or body["detail"][-1]["msg"])


def test_unknown_keys_are_counted(api: Api) -> None:
    body = api.refuse("chat", 422, **numbered(MAX_KEYS - 10))
    assert body["error"]["message"].count(f"; and {MAX_KEYS - 18} more.")
    assert body["detail"][3]["loc"] == ["body", "key 3"]


def test_lenient_mode_names_some_of_many_ignored_fields(make_api: Callable[..., Api]) -> None:
    api = make_api(lenient=True)
    messages = [{**USER, "mood": 1, HUGE_NAME: 1}, *[{**USER, "mood": 1}] * 300]
    response = api.post(CHAT, api.chat_body(messages=messages, temperature=0))
    assert response.status_code == 200
    names = response.headers["x-jaxserve-ignored-fields"].split(",")
    assert len(names) <= MAX_FINDINGS + 1
    assert len(response.headers["x-jaxserve-ignored-fields"]) < 5000
    assert "messages.0.mood" in names
    assert names[-1] == f"and%20{302 - MAX_FINDINGS}%20more"


LARGE: dict[str, Callable[[int], str]] = {
    "numbers": lambda count: f'{{"a": [{"1," * count}1]}}',
    "lists": lambda count: f'{{"a": [{"[]," * count}1]}}',
    "objects": lambda count: f'{{"a": [{"{}," * count}1]}}',
    "keys": lambda count: "{" + ",".join(f'"{index}":1' for index in range(count)) + "}",
}


@pytest.mark.parametrize("kind", LARGE)
def test_values_are_counted(kind: str) -> None:
    assert parse_json(LARGE[kind](1000).encode(), 2000)
    with pytest.raises(ApiError, match="more than 2000 values"):
        parse_json(LARGE[kind](2001).encode(), 2000)


@pytest.mark.parametrize("distinct", [7, 45_000])
def test_many_keys_are_read_as_few_are(distinct: int) -> None:
    """Piece by piece: of a key that comes again the last value counts, in the place of the first."""
    text = "{" + ",".join(f'"{index % distinct}":{index}' for index in range(50_000)) + "}"
    assert list(parse_json(text.encode()).items()) == list(json.loads(text).items())


@pytest.mark.parametrize("character", [",", ":", "[", "{", '\\"', "\\\\"])
def test_a_long_text_is_one_value(character: str) -> None:
    text = character * 300_000
    assert parse_json(f'{{"a": "{text}", "b": 1.5}}'.encode(), 10) == {"a": json.loads(f'"{text}"'), "b": 1.5}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e3, true, false, null, "\\u00e9\\n", {"b": {}}, []] }',
        '{"a": 1, "a": 2}',
        " {} ",
        '{"a": 1',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": [1,]}',
        '{"a": "\\ud800"}',
        '{"a": 1}x',
        "[" * 5000,
    ],
)
def test_both_scanners_read_the_same(text: str) -> None:
    """A long text full of separators has the interruptible one read the body."""

    def read(padding: str) -> Any:
        try:
            return parse_json(f'{{"padding": "{padding}", "value": {text}}}'.encode())["value"]
        except ApiError as error:
            return error.message.split(" at line")[0]

    assert read("") == read(":" * 30_000)


@pytest.mark.parametrize("kind", LARGE)
def test_reading_lets_other_threads_run(longest_silence: Any, kind: str) -> None:
    """Keys silenced everyone for 1.3 s. Generous: machines that run tests are busy."""
    body = LARGE[kind](450_000).encode()
    with longest_silence() as silence:
        parse_json(body)
    assert silence[0] < 0.4


SCHEMAS: dict[str, Any] = {
    "many values": {"enum": list(range(200_000))},
    "many keys": numbered(200_000),
    "deep": {"a": [[[{"b": list(range(200_000))}]]]},
    "a long text": {"description": "x" * 300_000},
    "a long key": {"x" * 300_000: 1},
    "many lists": {"enum": [[]] * 200_000},
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("field", ["tools", "functions", "response_format"])
def test_large_schemas_are_refused_by_their_size(api: Api, field: str, name: str) -> None:
    function = {"name": "f", "parameters": SCHEMAS[name]}
    fields: dict[str, Any] = {
        "tools": [{"type": "function", "function": function}],
        "functions": [function],
        "response_format": {"type": "json_schema", "json_schema": SCHEMAS[name]},
    }
    error = api.refuse("chat", 422, **{field: fields[field]})["error"]
    assert error["param"] == field
    assert "larger than 262144 bytes" in error["message"]


def test_a_large_answer_is_the_same_as_a_small_one(make_api: Callable[..., Api]) -> None:
    """Folded elsewhere and choice by choice, since it would hold up the event loop."""
    api = make_api(FakeEngine(reply=say('"choices":[] ' * 60)))
    fields = {"max_tokens": 700, "logprobs": True, "top_logprobs": 1, "seed": 1}
    small, large = api.complete(n=1, **fields), api.complete(n=3, **fields)
    assert large["choices"][0] == small["choices"][0]
    assert [choice["index"] for choice in large["choices"]] == [0, 1, 2]
    assert large["usage"]["completion_tokens"] > 1500
