"""The client people have, against the real server."""

from __future__ import annotations

import asyncio

import openai
import pytest


@pytest.fixture(scope="module")
def client(bundled_server):
    return openai.OpenAI(base_url=f"{bundled_server.url}/v1", api_key="unused", timeout=240)


@pytest.fixture(scope="module")
def async_client(bundled_server):
    return openai.AsyncOpenAI(base_url=f"{bundled_server.url}/inference/v1", api_key="unused", timeout=240)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


MESSAGES = [{"role": "user", "content": "Tell me a story about a cat and a red ball."}]


def test_models(client, model):
    assert client.models.retrieve(model).id == model


def test_chat_whole_equals_streamed(client, model):
    arguments = {"model": model, "messages": MESSAGES, "max_tokens": 40, "seed": 3, "temperature": 0.8}
    whole = client.chat.completions.create(**arguments)
    stream = client.chat.completions.create(**arguments, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content == streamed != ""
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert chunks[0].choices[0].delta.role == "assistant"


def test_completions_whole_equals_streamed(client, model):
    arguments = {"model": model, "prompt": "Once upon a time", "max_tokens": 30, "temperature": 0, "logprobs": 2}
    whole = client.completions.create(**arguments)
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**arguments, stream=True))
    assert whole.choices[0].text == streamed != ""
    assert len(whole.choices[0].logprobs.token_logprobs) == whole.usage.completion_tokens


def test_async_chat_and_completions(async_client, model):
    async def both():
        chat = async_client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=20, temperature=0)
        stream = await async_client.completions.create(model=model, prompt="One day", max_tokens=20, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        return (await chat).choices[0].message.content, text

    content, text = asyncio.run(both())
    assert content
    assert text


def test_stop_text_is_not_part_of_the_answer(client, model):
    free = client.completions.create(model=model, prompt="Once upon a time", max_tokens=40, temperature=0)
    text = free.choices[0].text
    stop = text[10:16]
    cut = client.completions.create(model=model, prompt="Once upon a time", max_tokens=40, temperature=0, stop=[stop])
    assert cut.choices[0].text == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_bad_requests_name_the_field_and_disturb_nobody(client, model):
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        client.completions.create(model=model, prompt="x", temperature=3)
    with pytest.raises(openai.BadRequestError, match="prompt"):
        client.completions.create(model=model, prompt=[5] * 600)
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.completions.create(model="no-such-model", prompt="x")
    with pytest.raises(openai.UnprocessableEntityError, match="logit_bias"):
        client.completions.create(model=model, prompt="x", logit_bias={"99999999": 1})
    answer = client.completions.create(model=model, prompt="x", max_tokens=3)
    assert answer.usage.completion_tokens <= 3


def test_a_bias_that_bans_everything_fails_alone(client, model):
    size = client.models.retrieve(model).model_extra["vocab_size"]
    if size > 1024:
        pytest.skip("logit_bias holds at most 1024 entries, the vocabulary is larger")
    with pytest.raises(openai.APIStatusError, match="bans every token"):
        client.completions.create(model=model, prompt="x", logit_bias={str(i): -100 for i in range(size)})
