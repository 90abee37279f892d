"""The bytes of a stream, from the first comment to [DONE]."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_client import CHAT, COMPLETIONS, Api, events
from api_fakes import EOS, FakeEngine, say

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
MakeApi = Callable[..., Api]


def test_the_bytes_of_a_chat_stream(api: Api) -> None:
    response = api.post(CHAT, api.chat_body("Hi", stream=True, max_tokens=2))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert "content-length" not in response.headers
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "H"},
        {"content": "e"},
        {},
    ]
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 3},
        {"stop": "w"},
        {},
        {"logprobs": True, "max_tokens": 2},
        {"logprobs": 1, "stop": "w"},
        {"n": 3, "return_token_ids": True, "raw_output": True},
        {"max_tokens": 0, "echo": True, "logprobs": True},
        {"stream_options": {"include_usage": True}, "max_tokens": 1},
        {"stream_options": {"include_usage": False}, "max_tokens": 1},
    ],
    ids=str,
)
def test_the_end_of_a_choice_is_a_chunk_of_its_own(api: Api, endpoint: str, fields: dict[str, Any]) -> None:
    """Loops that stop at a finish reason lose nothing; whoever goes on has lost nothing either."""
    chunks = api.stream(endpoint, **fields)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    ended = [choice for choice in choices if choice["finish_reason"] is not None]
    assert len(ended) == fields.get("n", 1)
    for choice in ended:
        assert choice.get("delta", {}) == {}
        assert choice.get("text", "") == ""
        assert not {"logprobs", "token_ids"} & set(choice)
    assert all(choices.index(choice) >= len(choices) - len(ended) for choice in ended) or fields.get("n")
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert ("usage" in chunks[-1]) == ((fields.get("stream_options") or {}).get("include_usage") is not False)


def test_the_role_comes_first_for_every_choice(api: Api) -> None:
    seen: set[int] = set()
    for chunk in api.stream("chat", n=3):
        for choice in chunk["choices"]:
            assert ("role" in choice["delta"]) == (choice["index"] not in seen)
            seen.add(choice["index"])
    assert seen == {0, 1, 2}


def test_characters_that_readers_take_for_line_ends_are_escaped(make_api: MakeApi) -> None:
    text = "a\u2028b\u2029c\x85d\x7fe\nf\rg"
    api = make_api(FakeEngine(reply=say(text)))
    response = api.post(COMPLETIONS, api.body("completions", stream=True, max_tokens=50))
    assert all(line == "" or line.startswith("data: ") for line in response.text.splitlines())
    assert "".join(c["text"] for _, d in events(response.text)[:-1] for c in d["choices"]) == text
    assert "é" in make_api(FakeEngine(reply=say("é"))).post(COMPLETIONS, api.body("completions")).text


@BOTH
def test_keepalive_comments_while_the_model_reads(make_live: Any, endpoint: str) -> None:
    server = make_live(keepalive_seconds=0.1)
    server.engine.gate.clear()
    path, body = (
        (CHAT, {"messages": [{"role": "user", "content": "Hi"}]})
        if endpoint == "chat"
        else (COMPLETIONS, {"prompt": "Hi"})
    )
    with httpx.stream("POST", server.url + path, json={"model": "fake", "stream": True, **body}) as response:
        lines = response.iter_lines()
        assert next(lines) == ": keep-alive"
        assert next(lines) == ""
        assert next(lines) == ": keep-alive"
        server.engine.gate.set()
        rest = [line for line in lines if line.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    assert len(rest) > 10


def test_a_stream_is_not_held_back(make_live: Any) -> None:
    server = make_live(FakeEngine(reply=say("x" * 300), delay=0.02))
    with httpx.stream(
        "POST", server.url + COMPLETIONS, json={"model": "fake", "prompt": "a", "stream": True, "max_tokens": 300}
    ) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        assert server.engine.running, "the first chunk is here while the engine still works"


def test_text_that_is_not_ready_sends_nothing(make_api: MakeApi) -> None:
    api = make_api(FakeEngine(reply=lambda request, choice: [*"€".encode(), EOS]))
    texts = [c["text"] for chunk in api.stream("completions") for c in chunk["choices"]]
    assert texts == ["€", ""]
