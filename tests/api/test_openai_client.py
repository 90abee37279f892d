"""The openai client against a real server: both endpoints, streamed and not, sync and async, and its errors."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from api_fakes import FakeEngine
from openai import AsyncOpenAI, OpenAI

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture(params=["/v1", "/inference/v1"])
def base_url(request: pytest.FixtureRequest, live: Any) -> str:
    return str(live.url + request.param)


def client(base_url: str, key: str = "none") -> OpenAI:
    return OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=20)


def test_chat(base_url: str) -> None:
    answer = client(base_url).chat.completions.create(
        model="fake", messages=MESSAGES, n=2, logprobs=True, top_logprobs=2, seed=1, max_completion_tokens=3
    )
    assert [choice.message.content for choice in answer.choices] == ["Hel", "Hel"]
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 6)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [2, 2, 2]


def test_chat_stream(base_url: str) -> None:
    stream = client(base_url).chat.completions.create(
        model="fake", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello world"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 18


def test_chat_stream_helper(base_url: str) -> None:
    with client(base_url).chat.completions.stream(model="fake", messages=MESSAGES) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Hello world"


def test_completions(base_url: str) -> None:
    answer = client(base_url).completions.create(model="fake", prompt=["a", "b"], echo=True, logprobs=2, max_tokens=4)
    assert [choice.text for choice in answer.choices] == ["aHell", "bHell"]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.text_offset == [0, 0, 1, 2, 3, 4]
    pieces = list(client(base_url).completions.create(model="fake", prompt=[1, 2], stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == "Hello world"


def test_async(base_url: str) -> None:
    async def run() -> list[str]:
        async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=20) as aclient:
            whole = await aclient.chat.completions.create(model="fake", messages=MESSAGES)
            text = await aclient.completions.create(model="fake", prompt="a")
            streamed = [
                c async for c in await aclient.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
            ]
            pieces = [c async for c in await aclient.completions.create(model="fake", prompt="a", stream=True)]
        return [
            whole.choices[0].message.content or "",
            text.choices[0].text,
            "".join(chunk.choices[0].delta.content or "" for chunk in streamed),
            "".join(piece.choices[0].text for piece in pieces),
        ]

    assert asyncio.run(run()) == ["Hello world"] * 4


def test_models(base_url: str) -> None:
    assert [model.id for model in client(base_url).models.list()] == ["fake", "accounts/test/models/fake"]
    assert client(base_url).models.retrieve("fake").owned_by == "jaxserve"


def test_errors_arrive_as_the_clients_own(make_live: Any) -> None:
    server = make_live(api_keys=("right",))
    good = client(server.url + "/v1", "right")
    with pytest.raises(openai.AuthenticationError):
        client(server.url + "/v1", "wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        good.chat.completions.create(model="other", messages=MESSAGES)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        good.chat.completions.create(model="fake", messages=MESSAGES, temperature=3)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError):
        good.completions.create(model="fake", prompt="x" * 3000)


def test_a_failure_in_the_middle_of_a_stream_is_raised(make_live: Any) -> None:
    server = make_live(FakeEngine(fail=RuntimeError("inside"), fail_after=3, delay=0.01))
    stream = client(server.url + "/v1").chat.completions.create(model="fake", messages=MESSAGES, stream=True)
    got = [next(stream).choices[0].delta.content for _ in range(4)]
    assert "".join(text or "" for text in got) == "Hel"
    with pytest.raises(openai.APIError, match="internal server error"):
        next(stream)
