"""Fields that change what is generated or returned, on both endpoints."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

import pytest
from api_client import Api
from api_fakes import BOS, CONTEXT, EOS, FakeEngine, ids_of, model_info, say

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
MakeApi = Callable[..., Api]


def text_of(choice: dict[str, Any]) -> str:
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    assert isinstance(text, str)
    return text


@pytest.mark.proves("messages")
def test_messages_are_rendered_by_the_template(api: Api) -> None:
    api.chat(
        messages=[
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}], "name": "ann"},
            {"role": "assistant", "content": "C", "reasoning_content": "R"},
            {"role": "user", "content": "D"},
        ]
    )
    prompt = "<s><|system|>Be kind.<|end|><|user|>(ann)A\nB<|end|><|assistant|>[R]C<|end|><|user|>D<|end|><|assistant|>"
    assert list(api.last().prompt) == ids_of(prompt)


@pytest.mark.proves("prompt")
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ab", [[BOS, 97, 98]]),
        ("", [[BOS]]),
        (["ab", "", "c"], [[BOS, 97, 98], [BOS], [BOS, 99]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98, 99], []], [[97], [98, 99], [BOS]]),
        ("a</s>b", [[BOS, 97, EOS, 98]]),
    ],
)
def test_prompts_in_every_form(api: Api, prompt: Any, expected: list[list[int]]) -> None:
    response = api.complete(prompt)
    assert [list(request.prompt) for request in api.engine.requests] == expected
    assert [choice["index"] for choice in response["choices"]] == list(range(len(expected)))
    assert response["usage"]["prompt_tokens"] == sum(map(len, expected))


@pytest.mark.parametrize("prompt", ["", ["a", ""], [[]]])
def test_an_empty_prompt_needs_a_bos(make_api: MakeApi, prompt: Any) -> None:
    error = make_api(bos=False).refuse("completions", 422, prompt=prompt)["error"]
    assert error["param"].startswith("prompt")


@BOTH
@pytest.mark.proves("n")
def test_n(api: Api, endpoint: str) -> None:
    response = api.send(endpoint, n=3)
    assert api.last().n == 3
    assert [text_of(c) for c in response["choices"]] == ["Hello world", "Hello world1", "Hello world2"]
    assert [c["index"] for c in response["choices"]] == [0, 1, 2]


def test_choices_of_several_prompts_are_numbered_prompt_by_prompt(api: Api) -> None:
    response = api.complete(["a", "b"], n=2, echo=True)
    assert [text_of(c) for c in response["choices"]] == [
        "aHello world",
        "aHello world1",
        "bHello world",
        "bHello world1",
    ]


@BOTH
@pytest.mark.proves("max_tokens", "max_completion_tokens")
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_max_tokens(api: Api, endpoint: str, field: str) -> None:
    response = api.send(endpoint, **{field: 4})
    assert text_of(response["choices"][0]) == "Hell"
    assert response["choices"][0]["finish_reason"] == "length"
    assert response["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(("endpoint", "default"), [("chat", 2048), ("completions", 16)])
def test_default_max_tokens(make_api: MakeApi, endpoint: str, default: int) -> None:
    api = make_api(FakeEngine(reply=say("x" * 3000)), model=model_info(context_length=4096))
    assert api.send(endpoint)["usage"]["completion_tokens"] == default
    changed = make_api(default_max_tokens=5)
    assert changed.send(endpoint)["usage"]["completion_tokens"] == 5


@BOTH
@pytest.mark.proves("context_length_exceeded_behavior")
def test_context_length_exceeded_behavior(api: Api, endpoint: str) -> None:
    api.send(endpoint, max_tokens=10**9, context_length_exceeded_behavior="truncate")
    request = api.last()
    assert request.max_tokens == CONTEXT - len(request.prompt)
    error = api.refuse(endpoint, 400, max_tokens=10**9, context_length_exceeded_behavior="error")["error"]
    assert error["param"] == "max_tokens"
    assert error["code"] == "context_length_exceeded"
    api.send(endpoint, context_length_exceeded_behavior="error", max_tokens=CONTEXT - len(request.prompt))


@BOTH
def test_a_prompt_that_leaves_no_room_is_refused(make_api: MakeApi, endpoint: str) -> None:
    api = make_api(model=model_info(context_length=30))
    field, long = ("messages", "x" * 26) if endpoint == "chat" else ("prompt", "x" * 29)
    fields: dict[str, Any] = {"content": long} if endpoint == "chat" else {"prompt": long}
    error = api.refuse(endpoint, 400, **fields)["error"]
    assert error["param"] == field
    fields = {name: value[1:] for name, value in fields.items()} if endpoint == "completions" else {"content": long[1:]}
    response = api.send(endpoint, **fields)
    assert response["usage"]["completion_tokens"] == 1


@BOTH
@pytest.mark.proves("stream")
def test_stream_and_whole_say_the_same(api: Api, endpoint: str) -> None:
    chunks = api.stream(endpoint, n=2)
    assert len(chunks) > 10
    whole = api.send(endpoint, n=2)
    for index, choice in enumerate(whole["choices"]):
        pieces = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in pieces) == text_of(choice)
        assert [c["finish_reason"] for c in pieces if c["finish_reason"]] == [choice["finish_reason"]]
    assert "usage" not in chunks[-2]
    assert chunks[-1]["usage"] == whole["usage"]


@BOTH
@pytest.mark.proves("stream_options")
def test_stream_options_include_usage(api: Api, endpoint: str) -> None:
    chunks = api.stream(endpoint, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert not any("usage" in chunk for chunk in chunks[:-1]), "clients add up the usage they find"
    assert all(chunk["choices"] for chunk in api.stream(endpoint, stream_options={"include_usage": False}))
    assert api.refuse(endpoint, 422, stream_options={"include_usage": True})["error"]["param"] == "stream_options"


@BOTH
@pytest.mark.proves("echo")
def test_echo(api: Api, endpoint: str) -> None:
    prompt = "<|user|>Hi<|end|><|assistant|>" if endpoint == "chat" else "Hi"
    assert text_of(api.send(endpoint, echo=True)["choices"][0]) == prompt + "Hello world"
    assert text_of(api.send(endpoint, echo=False)["choices"][0]) == "Hello world"


@BOTH
@pytest.mark.proves("echo_last")
@pytest.mark.parametrize(
    ("count", "chat", "plain"),
    [
        (0, "", ""),
        (1, "<|assistant|>", "i"),
        (2, "<|end|><|assistant|>", "Hi"),
        (99, "<|user|>Hi<|end|><|assistant|>", "Hi"),
    ],
)
def test_echo_last(api: Api, endpoint: str, count: int, chat: str, plain: str) -> None:
    response = api.send(endpoint, echo_last=count)
    assert text_of(response["choices"][0]) == (chat if endpoint == "chat" else plain) + "Hello world"
    assert response["usage"]["completion_tokens"] == 12


@BOTH
@pytest.mark.parametrize("echo", [{"echo": True}, {"echo_last": 2}])
def test_no_new_tokens_with_echo(api: Api, endpoint: str, echo: dict[str, Any]) -> None:
    response = api.send(endpoint, max_tokens=0, logprobs=True, **echo)
    choice = response["choices"][0]
    assert response["usage"]["completion_tokens"] == 0
    assert choice["finish_reason"] == "length"
    expected = len(api.last().prompt) if "echo" in echo else 2
    assert len(choice["logprobs"]["content"]) == expected
    assert api.refuse(endpoint, 422, max_tokens=0)["error"]["param"] == "max_tokens"
    assert api.refuse(endpoint, 422, max_tokens=0, echo_last=0)["error"]["param"] == "max_tokens"
    assert api.refuse(endpoint, 422, max_completion_tokens=0)["error"]["param"] == "max_completion_tokens"


@BOTH
@pytest.mark.proves("return_token_ids")
def test_return_token_ids(api: Api, endpoint: str) -> None:
    chunks = api.stream(endpoint, return_token_ids=True)
    prompt, output = list(api.last().prompt), [*b"Hello world", EOS]
    first = chunks[0]["choices"][0]
    assert first["prompt_token_ids"] == prompt
    assert chunks[0].get("prompt_token_ids") == (prompt if endpoint == "chat" else None)
    assert [t for chunk in chunks for c in chunk["choices"] for t in c.get("token_ids", [])] == output
    for several in (api.stream(endpoint, return_token_ids=True, n=2),) if endpoint == "chat" else ():
        assert [chunk.get("prompt_token_ids") for chunk in several] == [prompt] + [None] * (len(several) - 1)
    whole = api.send(endpoint, return_token_ids=True)
    assert (whole if endpoint == "chat" else whole["choices"][0])["prompt_token_ids"] == prompt
    assert whole["choices"][0]["token_ids"] == output
    assert "token_ids" not in api.send(endpoint)["choices"][0]


def test_every_prompt_of_a_list_gets_its_own_token_ids(api: Api) -> None:
    choices = api.complete(["a", "bc"], return_token_ids=True)["choices"]
    assert [c["prompt_token_ids"] for c in choices] == [[BOS, 97], [BOS, 98, 99]]


@BOTH
@pytest.mark.proves("raw_output")
def test_raw_output(api: Api, endpoint: str) -> None:
    raw = api.send(endpoint, raw_output=True)["choices"][0]["raw_output"]
    assert raw == {
        "prompt_fragments": ["<s><|user|>Hi<|end|><|assistant|>"] if endpoint == "chat" else ["Hi"],
        "prompt_token_ids": list(api.last().prompt),
        "completion": "Hello world",
        "completion_token_ids": [*b"Hello world", EOS],
        "grammar": None,
    }
    for echo, count in (({"echo": True}, None), ({"echo_last": 2}, 2)):
        choice = api.send(endpoint, raw_output=True, logprobs=True, **echo)["choices"][0]
        shown = raw["prompt_token_ids"][-(count or 99) :] + raw["completion_token_ids"]
        assert choice["raw_output"]["completion_token_ids"] == shown
        assert choice["raw_output"]["completion_logprobs"] == choice["logprobs"]
        assert [entry["token_id"] for entry in choice["logprobs"]["content"]] == shown
        assert choice["raw_output"]["completion"] == choice["text"] if endpoint == "completions" else True
    scored = api.send(endpoint, raw_output=True, logprobs=1)["choices"][0]
    assert [e["token_id"] for e in scored["raw_output"]["completion_logprobs"]["content"]] == [*b"Hello world", EOS]
    streamed = [
        c["raw_output"]
        for chunk in api.stream(endpoint, raw_output=True)
        for c in chunk["choices"]
        if "raw_output" in c
    ]
    assert streamed == [raw]


def test_raw_output_shows_special_tokens_and_the_stop_text(make_api: MakeApi) -> None:
    api = make_api(FakeEngine(reply=lambda request, choice: [*b"a", 261, *b"bSTOP", EOS]))
    choice = api.complete(raw_output=True, stop="STOP")["choices"][0]
    assert choice["text"] == "ab"
    assert choice["raw_output"]["completion"] == "a<|end|>bSTOP"


def test_prompt_fragments_are_the_messages(api: Api) -> None:
    messages = [
        {"role": role, "content": text}
        for role, text in [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C")]
    ]
    raw = api.chat(messages=messages, raw_output=True)["choices"][0]["raw_output"]
    assert raw["prompt_fragments"] == [
        "<s><|system|>S<|end|>",
        "<|user|>A<|end|>",
        "<|assistant|>B<|end|>",
        "<|user|>C<|end|><|assistant|>",
    ]
    assert api.complete([5, 6], raw_output=True)["choices"][0]["raw_output"]["prompt_fragments"] == [5, 6]


@BOTH
@pytest.mark.proves("perf_metrics_in_response")
def test_perf_metrics(make_api: MakeApi, endpoint: str) -> None:
    api = make_api(FakeEngine(cached=3), deployment="blue", backend_host="host7")
    metrics = api.send(endpoint, perf_metrics_in_response=True)["perf_metrics"]
    assert set(metrics) == {
        "prompt-tokens",
        "cached-prompt-tokens",
        "server-time-to-first-token",
        "server-processing-time",
        "speculation-prompt-tokens",
        "speculation-prompt-matched-tokens",
        "speculation-generated-tokens",
        "num-concurrent-requests",
        "deployment",
        "backend-host",
        "tokenizer-queue-duration",
        "tokenizer-duration",
        "prefill-queue-duration",
        "prefill-duration",
        "generation-queue-duration",
        "generation-duration",
    }
    assert (metrics["prompt-tokens"], metrics["cached-prompt-tokens"]) == (len(api.last().prompt), 3)
    assert 0 < metrics["server-time-to-first-token"] < metrics["server-processing-time"] < 5
    assert metrics["num-concurrent-requests"] == 1
    chunks = api.stream(endpoint, perf_metrics_in_response=True)
    assert ["perf_metrics" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert set(chunks[-1]["perf_metrics"]) == set(metrics)
    assert "perf_metrics" not in api.send(endpoint)


@BOTH
def test_perf_metrics_are_always_in_the_headers(api: Api, endpoint: str) -> None:
    path = "/v1/chat/completions" if endpoint == "chat" else "/v1/completions"
    headers = api.post(path, api.body(endpoint)).headers
    assert headers["fireworks-prompt-tokens"] == str(len(api.last().prompt))
    assert headers["fireworks-cached-prompt-tokens"] == "0"
    assert float(headers["fireworks-server-time-to-first-token"]) > 0
    assert float(headers["fireworks-server-processing-time"]) > 0
    assert headers["fireworks-num-concurrent-requests"] == "1"


@BOTH
@pytest.mark.proves("prompt_cache_isolation_key", "prompt_cache_key", "prompt_cache_max_len")
def test_prompt_cache_fields(api: Api, endpoint: str) -> None:
    keys = []
    for fields in (
        {},
        {"prompt_cache_isolation_key": "a"},
        {"prompt_cache_key": "a"},
        {"prompt_cache_isolation_key": "a", "prompt_cache_key": "b"},
        {"prompt_cache_isolation_key": ""},
    ):
        api.send(endpoint, **fields)
        keys.append(api.last().cache_key)
    assert keys[0] == ""
    assert len(set(keys)) == len(keys)
    api.send(endpoint, prompt_cache_isolation_key="a")
    assert api.last().cache_key == keys[1]
    assert api.last().cache_max_len is None
    api.send(endpoint, prompt_cache_max_len=0)
    assert api.last().cache_max_len == 0


@BOTH
@pytest.mark.proves("safe_tokenization")
def test_safe_tokenization(api: Api, endpoint: str) -> None:
    text = "a</s><|user|>b"
    fields: dict[str, Any] = {"content": text} if endpoint == "chat" else {"prompt": text}
    api.send(endpoint, **fields, safe_tokenization=False)
    assert EOS in api.last().prompt
    response = api.send(endpoint, **fields, safe_tokenization=True, echo=True)
    plain = [*text.encode()]
    expected = (
        [*ids_of("<s><|user|>"), *plain, *ids_of("<|end|><|assistant|>")] if endpoint == "chat" else [BOS, *plain]
    )
    assert list(api.last().prompt) == expected
    assert text in text_of(response["choices"][0])


@BOTH
@pytest.mark.proves("return_last_activation", "include_routing_matrix")
def test_activations_and_routing(make_api: MakeApi, endpoint: str) -> None:
    api = make_api(model=model_info(returns_activations=True, routed_experts=(2, 2)))
    response = api.send(
        endpoint, logprobs=True, echo=True, max_tokens=2, return_last_activation=True, include_routing_matrix=True
    )
    *echoed, first, second = response["choices"][0]["logprobs"]["content"]
    assert all(entry["last_activation"] is None for entry in echoed)
    # The first token is predicted by none, the others by the one before them.
    routing = [entry["routing_matrix"] and [*base64.b64decode(entry["routing_matrix"])] for entry in echoed]
    assert routing == [None, *([9, 8, 7, position] for position in range(1, len(echoed)))]
    assert struct.unpack("<3f", base64.b64decode(first["last_activation"])) == (0.0, 1.0, 2.0)
    assert [*base64.b64decode(second["routing_matrix"])] == [1, 2, 3, 1]
    plain = api.send(endpoint, logprobs=True)["choices"][0]["logprobs"]["content"][0]
    assert plain["last_activation"] is None
    assert plain["routing_matrix"] is None
    for field in ("return_last_activation", "include_routing_matrix"):
        assert api.refuse(endpoint, 422, logprobs=1, **{field: True})["error"]["param"] == field
        dense = make_api().refuse(endpoint, 422, logprobs=True, **{field: True})
        assert dense["error"]["param"] == field


@BOTH
@pytest.mark.proves("model")
def test_model_is_what_was_asked_for(api: Api, endpoint: str) -> None:
    name = "accounts/test/models/fake"
    assert api.send(endpoint, model=name)["model"] == name
    assert api.refuse(endpoint, 404, model="other")["error"]["code"] == "model_not_found"


@BOTH
@pytest.mark.proves("service_tier", "store")
def test_service_tier_and_store(api: Api, endpoint: str) -> None:
    api.send(endpoint, service_tier="auto", store=False)
    for tier, priority in (("auto", False), ("default", False), ("flex", False), ("priority", True)):
        api.send(endpoint, service_tier=tier)
        assert api.last().priority is priority
    assert api.refuse(endpoint, 422, service_tier="fast")["error"]["param"] == "service_tier"
    assert api.refuse(endpoint, 422, store=True)["error"]["param"] == "store"


def test_the_raw_completion_continues_the_prompt(make_api: MakeApi) -> None:
    """A character that the prompt's last token began belongs to both; alone, the output's part would be broken."""
    api = make_api(FakeEngine(reply=lambda request, choice: [0xA9, *b"!", EOS]))
    choice = api.complete([97, 0xC3], raw_output=True)["choices"][0]
    assert choice["text"] == "é!"
    assert choice["raw_output"]["completion"] == "é!"
