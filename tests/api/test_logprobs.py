"""Log-probabilities: two formats, two endpoints, echo, streams, broken characters, banned tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from api_client import Api
from api_fakes import BOS, EOS, FakeEngine, logprob_of, sampling_logprob_of, say

from jaxserve.api import logprobs
from jaxserve.api.logprobs import LOWEST, Entry
from jaxserve.api.wishes import View
from jaxserve.engine.requests import TokenLogprob

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
MakeApi = Callable[..., Api]


@BOTH
@pytest.mark.proves("logprobs")
@pytest.mark.parametrize("count", [0, 1, 5])
def test_legacy_format(api: Api, endpoint: str, count: int) -> None:
    shown = api.send(endpoint, logprobs=count, max_tokens=3)["choices"][0]["logprobs"]
    assert api.last().logprobs == count
    assert shown["tokens"] == ["H", "e", "l"]
    assert shown["token_ids"] == [72, 101, 108]
    assert shown["token_logprobs"] == [logprob_of(t) for t in b"Hel"]
    assert shown["text_offset"] == [0, 1, 2]
    assert [len(top) for top in shown["top_logprobs"]] == [max(count, 1)] * 3
    assert shown["top_logprobs"][0]["H"] == logprob_of(72)


@BOTH
@pytest.mark.proves("logprobs")
def test_new_format(api: Api, endpoint: str) -> None:
    content = api.send(endpoint, logprobs=True, max_tokens=2)["choices"][0]["logprobs"]["content"]
    assert api.last().logprobs == 0
    assert content[1] == {
        "token": "e",
        "logprob": logprob_of(101),
        "sampling_logprob": sampling_logprob_of(101),
        "bytes": [101],
        "top_logprobs": [],
        "token_id": 101,
        "text_offset": 1,
        "last_activation": None,
        "routing_matrix": None,
    }


@BOTH
@pytest.mark.proves("top_logprobs")
def test_top_logprobs(api: Api, endpoint: str) -> None:
    content = api.send(endpoint, logprobs=True, top_logprobs=2, max_tokens=1)["choices"][0]["logprobs"]["content"]
    assert api.last().logprobs == 2
    assert content[0]["top_logprobs"] == [
        {"token": "H", "logprob": logprob_of(72), "token_id": 72, "bytes": [72]},
        {"token": "I", "logprob": logprob_of(72) - 1, "token_id": 73, "bytes": [73]},
    ]
    legacy = api.send(endpoint, logprobs=5, top_logprobs=2, max_tokens=1)["choices"][0]["logprobs"]
    assert set(legacy["top_logprobs"][0]) == {"H", "I"}


@BOTH
def test_off(api: Api, endpoint: str) -> None:
    for fields in ({}, {"logprobs": False}, {"logprobs": None}):
        assert "logprobs" not in api.send(endpoint, **fields)["choices"][0]
        assert api.last().logprobs is None


@BOTH
@pytest.mark.parametrize("kind", [1, True])
def test_streamed_logprobs_add_up_to_the_whole(api: Api, endpoint: str, kind: Any) -> None:
    whole = api.send(endpoint, logprobs=kind, echo=True, n=2)["choices"]
    chunks = api.stream(endpoint, logprobs=kind, echo=True, n=2)
    for choice in whole:
        added: dict[str, list[Any]] = {}
        for piece in (c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]):
            for key, values in piece.get("logprobs", {}).items():
                added.setdefault(key, []).extend(values)
        assert added == choice["logprobs"]


def test_echoed_tokens_are_scored(api: Api) -> None:
    new = api.complete("Hi", logprobs=True, top_logprobs=1, echo=True, max_tokens=1)["choices"][0]["logprobs"][
        "content"
    ]
    assert [e["token_id"] for e in new] == [BOS, 72, 105, 72]
    assert [e["logprob"] for e in new] == [0.0, *map(logprob_of, b"HiH")]
    assert [e["sampling_logprob"] for e in new] == [None, None, None, sampling_logprob_of(72)]
    assert [e["text_offset"] for e in new] == [0, 0, 1, 2]
    assert [len(e["top_logprobs"]) for e in new] == [0, 1, 1, 1]
    legacy = api.complete("Hi", logprobs=1, echo=True, max_tokens=1)["choices"][0]["logprobs"]
    assert legacy["token_logprobs"] == [None, *map(logprob_of, b"HiH")]
    assert legacy["top_logprobs"][0] == {}


def test_echo_last_scores_only_the_tail(api: Api) -> None:
    content = api.complete("abcd", logprobs=True, echo_last=2, max_tokens=1)["choices"][0]["logprobs"]["content"]
    assert api.last().prompt_logprobs_from == 3
    assert [(e["token"], e["text_offset"], e["logprob"]) for e in content] == [
        ("c", 0, logprob_of(99)),
        ("d", 1, logprob_of(100)),
        ("H", 2, logprob_of(72)),
    ]


def test_prompt_scores_are_asked_for_only_when_shown(api: Api) -> None:
    for fields in ({"echo": True}, {"logprobs": 1}, {"logprobs": 1, "echo_last": 0}):
        api.complete(**fields)
        assert api.last().prompt_logprobs_from is None
    api.complete(logprobs=0, echo=True)
    assert api.last().prompt_logprobs_from == 0


@pytest.mark.parametrize("stop", [None, "ß"])
def test_offsets_and_bytes_of_characters_made_of_several_tokens(make_api: MakeApi, stop: str | None) -> None:
    api = make_api(FakeEngine(reply=say("aé€ßz")))
    chunks = api.stream("completions", prompt="ü", logprobs=True, echo=True, stop=stop)
    choices = [c for chunk in chunks for c in chunk["choices"]]
    text = "".join(c["text"] for c in choices)
    assert text == ("üaé€" if stop else "üaé€ßz")
    entries = [e for c in choices for e in c.get("logprobs", {}).get("content", [])]
    returned = b"".join(bytes(e["bytes"]) for e in entries).replace(b"<s>", b"").replace(b"</s>", b"").decode()
    assert returned.startswith(text)
    # BOS; two bytes of ü; a; two of é; three of €; two of ß; z; EOS
    assert [e["text_offset"] for e in entries] == ([0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 4] + ([] if stop else [5, 6]))
    assert entries[1]["token"] == "\ufffd"
    # A token never comes before the text it belongs to.
    length = 0
    for choice in choices:
        length += len(choice["text"])
        shown = choice.get("logprobs", {}).get("content", [])
        assert all(e["text_offset"] < max(length, 1) or choice is choices[-2] for e in shown)


def test_minus_infinity_is_a_number() -> None:
    from api_fakes import ByteTokenizer

    score = TokenLogprob(65, -math.inf, -math.inf, ((66, -0.5), (65, -math.inf)))
    entries = [Entry(65, 0, score)]
    legacy = logprobs.render(entries, View("legacy", 2), ByteTokenizer())
    assert legacy is not None
    assert legacy == {
        "tokens": ["A"],
        "token_logprobs": [LOWEST],
        "top_logprobs": [{"B": -0.5, "A": LOWEST}],
        "text_offset": [0],
        "token_ids": [65],
    }
    new = logprobs.render(entries, View("new", 2), ByteTokenizer())
    assert new is not None
    assert new["content"][0]["sampling_logprob"] == LOWEST  # type: ignore[typeddict-item]


def test_the_sampled_token_is_always_among_legacy_alternatives() -> None:
    from api_fakes import ByteTokenizer

    shown = logprobs.legacy([Entry(65, 0, TokenLogprob(65, -4.0, -4.0, ((66, -0.5),)))], 1, ByteTokenizer())
    assert shown["top_logprobs"] == [{"B": -0.5, "A": -4.0}]


def test_the_last_token_is_end_of_sequence(api: Api) -> None:
    content = api.complete(logprobs=True)["choices"][0]["logprobs"]["content"]
    assert (content[-1]["token_id"], content[-1]["text_offset"]) == (EOS, len("Hello world"))
