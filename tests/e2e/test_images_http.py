"""A tiny model that reads images as a server: clients, hostile files, and addresses that it must not go to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from file_server import FileServer
from pictures import data_url, hostile, noise, png_url

from jaxserve import LLM

# litellm would ask the internet for a list of prices otherwise.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
MODEL = Path(__file__).resolve().parents[1] / "fixtures" / "models" / "qwen3_vl"
PLACE = "messages.0.content.1.image_url"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 6}


@pytest.fixture(scope="module")
def server(seeing_server: str) -> str:
    return seeing_server


@pytest.fixture(scope="module")
def http(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


def asked(*urls: str) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "what is"}, *parts]}]


def post(http: httpx.Client, *urls: str) -> httpx.Response:
    return http.post("/v1/chat/completions", json={"model": MODEL.name, "messages": asked(*urls), **GREEDY})


@pytest.fixture(scope="module")
def answer(http: httpx.Client) -> str:
    """What the model says of picture 1."""
    found = post(http, png_url(noise(1)))
    assert found.status_code == 200, found.text
    content: str = found.json()["choices"][0]["message"]["content"]
    return content


def test_openai_shows_images(server: str, answer: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    messages: Any = asked(png_url(noise(1)))
    whole = client.chat.completions.create(model=MODEL.name, messages=messages, **GREEDY)
    assert whole.choices[0].message.content == answer
    shown = {"type": "input_image", "image_url": png_url(noise(1))}
    given: Any = [{"role": "user", "content": [{"type": "input_text", "text": "what is"}, shown]}]
    said = client.responses.create(model=MODEL.name, input=given, temperature=0, max_output_tokens=6)
    assert said.output_text == answer


def test_litellm_shows_images(server: str, answer: str) -> None:
    litellm = pytest.importorskip("litellm")
    options = {"model": f"openai/{MODEL.name}", "api_base": f"{server}/v1", "api_key": "none", "num_retries": 0}
    messages = asked(png_url(noise(1)))
    assert litellm.completion(messages=messages, **GREEDY, **options).choices[0].message.content == answer
    chunks = litellm.completion(messages=messages, stream=True, **GREEDY, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer


@pytest.mark.parametrize("package", ["openai", "fireworks"])
def test_langchain_shows_images(server: str, answer: str, package: str) -> None:
    langchain = pytest.importorskip(f"langchain_{package}")
    options = {"model": MODEL.name, "api_key": "none", "max_retries": 1, **GREEDY}
    if package == "openai":
        chat = langchain.ChatOpenAI(base_url=f"{server}/v1", **options)
    else:
        chat = langchain.ChatFireworks(base_url=f"{server}/inference", **options)
    assert chat.invoke(asked(png_url(noise(1)))).content == answer
    assert "".join(chunk.content for chunk in chat.stream(asked(png_url(noise(1))))) == answer


def test_anthropic_shows_images(server: str, answer: str) -> None:
    anthropic = pytest.importorskip("anthropic")
    client = anthropic.Anthropic(base_url=server, api_key="none", max_retries=0)
    data = png_url(noise(1)).partition(",")[2]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    message = {"role": "user", "content": [{"type": "text", "text": "what is"}, image]}
    said = client.messages.create(model=MODEL.name, messages=[message], max_tokens=6, extra_body={"temperature": 0})
    assert said.content[0].text == answer


def test_hostile_files_harm_nobody(server: str, http: httpx.Client, answer: str) -> None:
    """Both endpoints are sent 60 files, while an innocent request is answered again and again as if it were alone."""
    done, innocent = threading.Event(), []

    def ask() -> None:
        with httpx.Client(base_url=server, timeout=60) as client:
            while not done.is_set():
                innocent.append(post(client, png_url(noise(1))).json()["choices"][0]["message"]["content"])

    beside = threading.Thread(target=ask)
    beside.start()
    try:
        for name, data in hostile().items():
            url = data_url(data)
            chat = post(http, url)
            body = {"model": MODEL.name, "prompt": "<image><image>", "images": [png_url(noise(2)), url], **GREEDY}
            completion = http.post("/v1/completions", json=body)
            for refused, place in ((chat, PLACE), (completion, "images.1")):
                assert refused.status_code == 422, (name, refused.text)
                assert refused.json()["error"]["param"] == place, name
                assert place in refused.json()["error"]["message"], name
    finally:
        done.set()
        beside.join()
    assert len(innocent) > 3
    assert set(innocent) == {answer}


@pytest.fixture(scope="module")
def hidden() -> Iterator[FileServer]:
    made = FileServer("127.0.0.1")
    yield made
    made.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "example.com@127.0.0.1",
    ],
)
def test_the_servers_own_network_is_out_of_reach(http: httpx.Client, hidden: FileServer, host: str) -> None:
    hidden.asked.clear()
    url = hidden.url("/image.png", host)
    body = {"model": MODEL.name, "prompt": "<image>", "images": [url]}
    for refused, place in ((post(http, url), PLACE), (http.post("/v1/completions", json=body), "images.0")):
        assert refused.status_code == 422, refused.text
        assert refused.json()["error"]["param"] == place
    assert not hidden.asked


def test_64_texts_and_images_at_once_are_as_alone(seeing: LLM, server: str, http: httpx.Client) -> None:
    texts = [{"role": "user", "content": "say"}]

    def body(number: int) -> dict[str, Any]:
        urls = [png_url(noise(number % 7, 8 * (2 + number % 3), 16)) for _ in range(number % 3)]
        messages = asked(*urls) if urls else texts
        return {"model": MODEL.name, "messages": messages, "seed": number, "max_tokens": 4, "return_token_ids": True}

    def tokens(client: httpx.Client, number: int) -> list[int]:
        answer = client.post("/v1/chat/completions", json=body(number))
        assert answer.status_code == 200, answer.text
        found: list[int] = answer.json()["choices"][0]["token_ids"]
        return found

    together: dict[int, list[int]] = {}
    compiled = seeing.stats().compilations

    def ask(number: int) -> None:
        with httpx.Client(base_url=server, timeout=120) as client:
            together[number] = tokens(client, number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: tokens(http, number) for number in range(0, 64, 3)} == {
        number: together[number] for number in range(0, 64, 3)
    }
    assert seeing.stats().compilations == compiled
