"""Usage and finish reasons, exact for every combination."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from api_client import Api


@pytest.mark.parametrize(
    ("prompt", "n", "echo", "cached", "max_tokens", "stream"),
    list(
        itertools.product(
            ["Hi", ["Hi", "abc"], [72, 105], [[72], [73, 74]]], [1, 3], [False, True], [0, 2], [5, 20], [False, True]
        )
    ),
)
def test_usage(shared_api: Api, prompt: Any, n: int, echo: bool, cached: int, max_tokens: int, stream: bool) -> None:
    api = shared_api
    api.engine.cached = cached
    fields = {"n": n, "echo": echo, "max_tokens": max_tokens}
    if stream:
        usage = api.stream("completions", prompt=prompt, **fields)[-1]["usage"]
    else:
        usage = api.complete(prompt, **fields)["usage"]
    api.engine.cached = 0
    prompts = {"Hi": [3]}.get(prompt) if isinstance(prompt, str) else None
    if prompts is None:
        prompts = [2] if prompt == [72, 105] else [1, 2] if prompt == [[72], [73, 74]] else [3, 4]
    # "Hello world" and its end are 12 tokens; later choices say their number too.
    outputs = [min(max_tokens, 12 + (choice > 0)) for choice in range(n)]
    completion = sum(outputs) * len(prompts)
    assert usage == {
        "prompt_tokens": sum(prompts),
        "completion_tokens": completion,
        "total_tokens": sum(prompts) + completion,
        "prompt_tokens_details": {"cached_tokens": cached * len(prompts)},
    }


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_only_the_chunk_that_ends_the_last_choice_has_usage(api: Api, endpoint: str) -> None:
    chunks = api.stream(endpoint, n=3)
    assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "stop"),
        ({"stop": "w"}, "stop"),
        ({"max_tokens": 3}, "length"),
        ({"max_tokens": 12}, "stop"),
        ({"max_tokens": 11}, "length"),
        ({"ignore_eos": True, "max_tokens": 13}, "length"),
        ({"max_tokens": 0, "echo": True}, "length"),
    ],
)
def test_finish_reasons(api: Api, endpoint: str, fields: dict[str, Any], reason: str) -> None:
    assert api.send(endpoint, **fields)["choices"][0]["finish_reason"] == reason
    reasons = [c["finish_reason"] for chunk in api.stream(endpoint, **fields) for c in chunk["choices"]]
    assert reasons[-1] == reason
    assert set(reasons[:-1]) <= {None}
