"""Other people's clients against a real server. Each test runs where its package is installed."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from api_fakes import FakeEngine

# litellm would ask the internet for a list of prices otherwise.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def test_fireworks_chat(live: Any) -> None:
    fireworks = pytest.importorskip("fireworks")
    client = fireworks.Fireworks(base_url=live.url, api_key="none", max_retries=0)
    answer = client.chat.completions.create(
        model="fake",
        messages=MESSAGES,
        raw_output=True,
        return_token_ids=True,
        logprobs=True,
        perf_metrics_in_response=True,
    )
    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].raw_output.completion == "Hello world"
    assert len(answer.choices[0].token_ids) == 12
    assert answer.perf_metrics["prompt-tokens"] == 6
    stream = client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello world"
    assert chunks[-1].usage.total_tokens == 18


def test_fireworks_completions(live: Any) -> None:
    fireworks = pytest.importorskip("fireworks")
    client = fireworks.Fireworks(base_url=live.url, api_key="none", max_retries=0)
    answer = client.completions.create(model="fake", prompt=["a", "b"], echo=True, max_tokens=2)
    assert [choice.text for choice in answer.choices] == ["aHe", "bHe"]
    pieces = list(client.completions.create(model="fake", prompt="a", stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == "Hello world"


def test_fireworks_async(live: Any) -> None:
    fireworks = pytest.importorskip("fireworks")

    async def run() -> tuple[str, str]:
        async with fireworks.AsyncFireworks(base_url=live.url, api_key="none", max_retries=0) as client:
            answer = await client.chat.completions.create(model="fake", messages=MESSAGES)
            stream = await client.completions.create(model="fake", prompt="a", stream=True)
            return answer.choices[0].message.content, "".join([piece.choices[0].text async for piece in stream])

    assert asyncio.run(run()) == ("Hello world", "Hello world")


def test_fireworks_errors(live: Any) -> None:
    fireworks = pytest.importorskip("fireworks")
    client = fireworks.Fireworks(base_url=live.url, api_key="none", max_retries=0)
    with pytest.raises(fireworks.UnprocessableEntityError):
        client.chat.completions.create(model="fake", messages=MESSAGES, temperature=3)
    with pytest.raises(fireworks.NotFoundError):
        client.completions.create(model="other", prompt="a")


@pytest.mark.parametrize(("provider", "path"), [("openai", "/v1"), ("fireworks_ai", "/inference/v1")])
def test_litellm(live: Any, provider: str, path: str) -> None:
    litellm = pytest.importorskip("litellm")
    options = {
        "model": f"{provider}/accounts/test/models/fake",
        "api_base": live.url + path,
        "api_key": "none",
        "num_retries": 0,
    }
    answer = litellm.completion(messages=MESSAGES, temperature=0, max_tokens=50, **options)
    assert answer.choices[0].message.content == "Hello world"
    assert answer.usage.total_tokens == 18
    chunks = list(litellm.completion(messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello world"
    text = litellm.text_completion(
        prompt="a", max_tokens=50, **{**options, "model": "text-completion-openai/fake", "api_base": live.url + "/v1"}
    )
    assert text.choices[0].text == "Hello world"


def test_litellm_errors(live: Any) -> None:
    litellm = pytest.importorskip("litellm")
    options = {"model": "openai/other", "api_base": live.url + "/v1", "api_key": "none", "num_retries": 0}
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(messages=MESSAGES, **options)


def test_langchain_openai(live: Any) -> None:
    langchain = pytest.importorskip("langchain_openai")
    options = {"model": "fake", "base_url": live.url + "/v1", "api_key": "none", "max_retries": 0}
    chat = langchain.ChatOpenAI(**options, max_tokens=50, temperature=0, seed=7)
    answer = chat.invoke("Hi")
    assert answer.content == "Hello world"
    assert answer.usage_metadata["total_tokens"] == 18
    assert live.engine.requests[-1].sampling.seed == 7
    assert "".join(chunk.content for chunk in chat.stream("Hi")) == "Hello world"
    assert asyncio.run(chat.ainvoke("Hi")).content == "Hello world"
    scored = chat.bind(logprobs=True, top_logprobs=2).invoke("Hi")
    assert len(scored.response_metadata["logprobs"]["content"]) == 12
    text = langchain.OpenAI(**options)
    assert text.invoke("a") == "Hello world"
    assert "".join(text.stream("a")) == "Hello world"


def test_langchain_fireworks(live: Any) -> None:
    langchain = pytest.importorskip("langchain_fireworks")
    chat = langchain.ChatFireworks(model="fake", base_url=live.url + "/inference", api_key="none", max_retries=1)
    answer = chat.invoke("Hi")
    assert answer.content == "Hello world"
    assert answer.usage_metadata["total_tokens"] == 18
    assert "".join(chunk.content for chunk in chat.stream("Hi")) == "Hello world"


def test_langchain_reports_failures(make_live: Any) -> None:
    langchain = pytest.importorskip("langchain_openai")
    import openai

    server = make_live(FakeEngine(fail=RuntimeError("inside"), fail_after=3, delay=0.01))
    chat = langchain.ChatOpenAI(model="fake", base_url=server.url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.APIError):
        list(chat.stream("Hi"))
