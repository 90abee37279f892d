"""A model with a tower, from requests to answers: notebook, both endpoints and a client, on one engine."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient

from jaxserve import LLM
from jaxserve.api.app import create_app
from jaxserve.errors import InvalidRequest

MODEL = Path(__file__).resolve().parents[1] / "fixtures" / "models" / "qwen3_vl"
PAD = 261
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 6, "return_token_ids": True}


@pytest.fixture(scope="module")
def llm(seeing: LLM) -> LLM:
    return seeing


@pytest.fixture(scope="module")
def http(llm: LLM) -> Iterator[TestClient]:
    chats = llm._chats
    with TestClient(create_app(llm._started.engine, chats._text, chats._settings)) as client:
        yield client


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(MODEL / "expected.npz"))


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8))


def url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def asked(*images: Image.Image) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url(image)}} for image in images]
    return [{"role": "user", "content": [{"type": "text", "text": "what is"}, *parts]}]


def post(http: TestClient, path: str, **fields: Any) -> dict[str, Any]:
    response = http.post(path, json={"model": MODEL.name, **GREEDY, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_completions_give_the_references_tokens(http: TestClient, golden: dict[str, np.ndarray]) -> None:
    ids = golden["ids_a"]
    short = ids[(ids != PAD) | (np.roll(ids, 1) != PAD)].tolist()
    images = [url(Image.fromarray(golden[name])) for name in sorted(golden) if name.startswith("picture_")]
    assert images
    wanted = {"max_tokens": len(golden["greedy_a"]), "ignore_eos": True}
    answer = post(http, "/v1/completions", prompt=short, images=images, **wanted)
    (choice,) = answer["choices"]
    assert choice["prompt_token_ids"] == ids.tolist()
    assert choice["token_ids"] == golden["greedy_a"].tolist()
    assert answer["usage"]["prompt_tokens"] == len(ids)


def test_every_way_in_gives_the_same_answer(llm: LLM, http: TestClient) -> None:
    alone = llm.chat([{"role": "user", "content": ["what is", picture(1)]}], **GREEDY)
    again = post(http, "/v1/chat/completions", messages=asked(picture(1)))
    prompt = "<|im_start|>user\nwhat is<image><|im_end|>\n<|im_start|>assistant\n"
    completed = post(http, "/v1/completions", prompt=prompt, images=[url(picture(1))])
    ids = again["prompt_token_ids"]
    assert ids.count(PAD) == 6
    assert ids == alone.response["prompt_token_ids"] == completed["choices"][0]["prompt_token_ids"]
    tokens = again["choices"][0]["token_ids"]
    assert tokens == alone.response["choices"][0]["token_ids"] == completed["choices"][0]["token_ids"]
    other = post(http, "/v1/chat/completions", messages=asked(picture(2)), logprobs=True)
    scored = post(http, "/v1/chat/completions", messages=asked(picture(1)), logprobs=True)
    assert other["choices"][0]["logprobs"] != scored["choices"][0]["logprobs"], "the picture is seen"


def test_an_image_is_encoded_once_for_all_ways(llm: LLM, http: TestClient) -> None:
    before = llm.stats().images_encoded
    messages = asked(picture(303), picture(303))
    first = post(http, "/v1/chat/completions", messages=messages)
    second = post(http, "/v1/chat/completions", messages=messages)
    assert first["choices"] == second["choices"]
    assert llm.stats().images_encoded == before + 1
    assert llm.stats().compilations == llm._started.runner.compilations


def test_the_openai_client_streams(http: TestClient) -> None:
    client = openai.OpenAI(base_url="http://testserver/v1", api_key="x", http_client=http)
    messages: Any = asked(picture(1))
    stream = client.chat.completions.create(
        model=MODEL.name, messages=messages, temperature=0, max_tokens=6, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == post(http, "/v1/chat/completions", messages=messages)["choices"][0]["message"]["content"]


def test_a_picture_that_is_too_long_is_refused_in_the_notebook(llm: LLM) -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        llm.chat([{"role": "user", "content": [Image.new("RGB", (3000, 9))]}])


def test_the_card(http: TestClient) -> None:
    assert http.get(f"/v1/models/{MODEL.name}").json()["supports_image_input"] is True
