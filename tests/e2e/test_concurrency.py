"""Many streams at once: each answer is what the request gets alone, and nothing is lost, leaked or compiled."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass

import httpx
import pytest

STREAMS = 64
TIMEOUT = httpx.Timeout(240)


@dataclass(frozen=True)
class Answer:
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str


def bodies() -> list[dict]:
    """64 requests of mixed lengths: greedy and seeded, plain and truncated, some with equal beginnings."""
    rng = random.Random(7)
    words = [
        "once",
        "upon",
        "a",
        "time",
        "there",
        "was",
        "little",
        "cat",
        "red",
        "ball",
        "who",
        "lived",
        "near",
        "tree",
    ]
    made = []
    for index in range(STREAMS):
        beginning = "Once upon a time there was a little cat who lived near the old tree. " if index % 4 == 0 else ""
        prompt = beginning + " ".join(rng.choices(words, k=rng.randint(1, 90)))
        sampling = {"temperature": 0} if index % 2 else {"temperature": rng.choice([0.7, 1.0, 1.5]), "seed": index}
        if index % 3 == 0:
            sampling |= {"top_p": 0.9, "top_k": 40}
        if index % 5 == 0:
            sampling |= {"frequency_penalty": 0.5, "repetition_penalty": 1.1}
        made.append({"prompt": prompt, "max_tokens": rng.randint(1, 60), "return_token_ids": True, **sampling})
    return made


async def stream(client: httpx.AsyncClient, model: str, body: dict) -> Answer:
    text, ids, reason = "", [], None
    async with client.stream("POST", "/v1/completions", json={"model": model, "stream": True, **body}) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            for choice in chunk["choices"]:
                text += choice["text"]
                ids += choice.get("token_ids") or []
                reason = choice.get("finish_reason") or reason
    assert reason is not None
    return Answer(text, tuple(ids), reason)


async def together(url: str, model: str, requests: list[dict]) -> list[Answer]:
    limits = httpx.Limits(max_connections=STREAMS)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits) as client:
        return await asyncio.gather(*(stream(client, model, body) for body in requests))


def alone(url: str, model: str, body: dict) -> Answer:
    return asyncio.run(together(url, model, [body]))[0]


@pytest.fixture(scope="module")
def model(bundled_server) -> str:
    return httpx.get(f"{bundled_server.url}/v1/models", timeout=30).json()["data"][0]["id"]


def test_64_streams_equal_each_alone(bundled_server, model):
    requests = bodies()
    compiled = bundled_server.engine("compilations")
    answers = asyncio.run(together(bundled_server.url, model, requests))
    bundled_server.wait_idle()
    for body, answer in zip(requests, answers, strict=True):
        assert alone(bundled_server.url, model, body) == answer, body
    bundled_server.wait_idle()
    assert bundled_server.engine("free_pages") == bundled_server.engine("total_pages")
    assert bundled_server.engine("compilations") == compiled, "something was compiled while serving"
    assert len({answer.text for answer in answers}) > STREAMS // 2


def test_streamed_equals_whole_and_cached_equals_fresh(bundled_server, model):
    body = {
        "prompt": "The little dog went to the river and " * 8,
        "max_tokens": 40,
        "temperature": 1.2,
        "seed": 11,
        "return_token_ids": True,
    }
    isolated = [{**body, "prompt_cache_isolation_key": f"key {n}"} for n in range(2)]
    fresh = alone(bundled_server.url, model, isolated[0])
    cached = alone(bundled_server.url, model, isolated[0])
    other = alone(bundled_server.url, model, isolated[1])
    whole = httpx.post(
        f"{bundled_server.url}/v1/completions", json={"model": model, **isolated[0]}, timeout=TIMEOUT
    ).json()
    assert fresh == cached == other
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    choice = whole["choices"][0]
    assert (choice["text"], tuple(choice["token_ids"]), choice["finish_reason"]) == (
        fresh.text,
        fresh.token_ids,
        fresh.finish_reason,
    )


def test_choices_differ_and_repeat(bundled_server, model):
    body = {"model": model, "prompt": "One day", "n": 5, "max_tokens": 24, "temperature": 1.3, "seed": 5}
    first, again = (
        httpx.post(f"{bundled_server.url}/v1/completions", json=body, timeout=TIMEOUT).json() for _ in range(2)
    )
    texts = [choice["text"] for choice in first["choices"]]
    assert texts == [choice["text"] for choice in again["choices"]]
    assert len(set(texts)) == 5
    single = httpx.post(f"{bundled_server.url}/v1/completions", json={**body, "n": 1}, timeout=TIMEOUT).json()
    assert single["choices"][0]["text"] == texts[0]


def test_disconnected_streams_free_their_pages(bundled_server, model):
    async def leave_early() -> None:
        async with httpx.AsyncClient(base_url=bundled_server.url, timeout=TIMEOUT) as client:
            body = {"model": model, "prompt": "Once", "max_tokens": 400, "ignore_eos": True, "stream": True}
            async with client.stream("POST", "/v1/completions", json=body) as response:
                async for _ in response.aiter_lines():
                    return

    async def all_leave() -> None:
        await asyncio.gather(*(leave_early() for _ in range(10)))

    before = bundled_server.engine("generated_tokens")
    asyncio.run(all_leave())
    bundled_server.wait_idle(15)
    assert bundled_server.engine("free_pages") == bundled_server.engine("total_pages")
    assert bundled_server.engine("generated_tokens") - before < 10 * 400
