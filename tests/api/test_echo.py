"""Echo, one rule for both endpoints: the tokens shown join to the text, offsets included, and the ids round-trip."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from api_client import Api
from api_fakes import BOS, CONTEXT, EOS, USER, FakeEngine, say

from jaxserve.api.echo import echo_of
from jaxserve.text import load_tokenizer

MakeApi = Callable[..., Api]
PROMPTS: list[Any] = [
    "Hi",
    "<s>Hi",
    "<|user|>a<s>b</s>",
    "",
    [72, 105],
    [BOS, 72],
    [72, BOS, BOS],
    [BOS, BOS, USER, 72],
]

published = cache(load_tokenizer)


def shown(choice: dict[str, Any]) -> tuple[str, list[str], list[int], list[int]]:
    """Text, tokens, offsets and ids of a choice, in either format."""
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    scores = choice["logprobs"]
    if "content" in scores:
        content = scores["content"]
        tokens = [entry["token"] for entry in content]
        assert [bytes(entry["bytes"]).decode() for entry in content] == tokens
        return text, tokens, [e["text_offset"] for e in content], [e["token_id"] for e in content]
    return text, scores["tokens"], scores["text_offset"], scores["token_ids"]


def check_law(choice: dict[str, Any]) -> None:
    text, tokens, offsets, _ = shown(choice)
    assert "".join(tokens) == text
    assert offsets == [0, *itertools.accumulate(map(len, tokens))][:-1]


@pytest.fixture(params=[True, False], ids=["bos", "no bos"])
def echoing(request: pytest.FixtureRequest, make_api: MakeApi) -> Api:
    api: Api = make_api(FakeEngine(reply=say("Hello world", eos=False)), bos=request.param)
    return api


@pytest.mark.parametrize("kind", [True, 1], ids=["new", "legacy"])
@pytest.mark.parametrize("fields", [{"echo": True}, {"echo_last": 1}, {"echo_last": 2}, {"echo_last": 9}], ids=str)
@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_tokens_join_to_the_text(echoing: Api, prompt: Any, fields: dict[str, Any], kind: Any) -> None:
    if prompt == "" and echoing.complete("x")["usage"]["prompt_tokens"] == 1:
        pytest.skip("without BOS there is no empty prompt")
    check_law(echoing.complete(prompt, logprobs=kind, max_tokens=3, **fields)["choices"][0])


@pytest.mark.parametrize("kind", [True, 1], ids=["new", "legacy"])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_chat_follows_the_same_rule(echoing: Api, max_tokens: int, kind: Any) -> None:
    asked: dict[str, Any] = {"logprobs": kind, "max_tokens": max_tokens, "echo": True}
    choice = echoing.chat("Hi", **asked)["choices"][0]
    check_law(choice)
    again = echoing.complete(list(echoing.last().prompt), **asked)["choices"][0]
    assert shown(again) == shown(choice)


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_ids_and_texts_round_trip(echoing: Api, prompt: Any) -> None:
    if prompt == "" and echoing.complete("x")["usage"]["prompt_tokens"] == 1:
        pytest.skip("without BOS there is no empty prompt")
    asked: dict[str, Any] = {"logprobs": 1, "max_tokens": 0, "echo": True}
    text, _, _, ids = shown(echoing.complete(prompt, **asked)["choices"][0])
    assert ids == list(echoing.last().prompt)
    assert shown(echoing.complete(ids, **asked)["choices"][0]) == shown(echoing.complete(prompt, **asked)["choices"][0])
    if isinstance(prompt, str):
        assert text == prompt


@pytest.mark.parametrize(
    ("tokens", "text", "offsets"),
    [
        (list("é".encode()), "é", [0, 0]),
        ([0xC3, 65, 66], "\ufffdAB", [0, 1, 2]),
        ([65, 0xC3, 66], "A\ufffdB", [0, 1, 2]),
        ([0xE2, 0x82, 65], "\ufffdA", [0, 0, 1]),
        ([0xC3, 0xE2, 0x82, 0xAC, 65], "\ufffd€A", [0, 1, 1, 1, 2]),
        ([0xFF, 65], "\ufffdA", [0, 1]),
        ([65, 0xC3], "A\ufffd", [0, 1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("side", ["prompt", "output"])
def test_offsets_around_broken_characters(
    make_api: MakeApi, tokens: list[int], text: str, offsets: list[int], side: str
) -> None:
    api = make_api(FakeEngine(reply=lambda request, choice: [*tokens, EOS]), bos=False)
    if side == "prompt":
        choice = api.complete(tokens, echo=True, max_tokens=0, logprobs=1)["choices"][0]
    else:
        choice = api.complete([BOS], max_tokens=len(tokens), logprobs=1)["choices"][0]
    assert choice["text"] == text
    assert choice["logprobs"]["text_offset"] == offsets


@pytest.mark.parametrize("fields", [{"logprobs": 1}, {"logprobs": True}, {}], ids=str)
def test_a_full_window_can_be_scored(api: Api, fields: dict[str, Any]) -> None:
    window = [65 + i % 20 for i in range(CONTEXT)]
    choice = api.complete(window, max_tokens=0, echo=True, **fields)["choices"][0]
    assert choice["text"] == bytes(window).decode()
    assert choice["finish_reason"] == "length"
    assert api.refuse("completions", 400, prompt=window, max_tokens=1, echo=True)["error"]["param"] == "prompt"
    assert api.refuse("completions", 400, prompt=[*window, 65], max_tokens=0, echo=True)["error"]["param"] == "prompt"


TEXTS = ["Hello world", " Hi", "  two", "naïve café €", "日本語 text\n\n", "a\tb", "🙂🙃 x", "\n", "é", ""]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["deepseek_v3", "gpt2", "gpt_oss", "llama2", "llama3", "qwen"])
def test_published_tokenizers_echo_what_they_were_given(shared_dir: Path, name: str, text: str) -> None:
    tokenizer = published(shared_dir / "real/tokenizers" / name)
    ids = tokenizer.encode(text, add_special_tokens=True)
    echo = echo_of(ids, None, tokenizer)
    assert echo.text == text
    places = itertools.pairwise([*echo.offsets, len(text)])
    for shown, (start, end) in zip(echo.shown, places, strict=True):
        assert 0 <= start <= end
        assert shown in (None, text[start:end])
    assert echo_of(ids, 2, tokenizer).text == text[[0, 0, *echo.offsets][-2] :]
