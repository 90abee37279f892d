"""The served model: its names and their aliases, what an unknown name or path is told, the defaults it ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest
from api_client import CHAT, COMPLETIONS, Api, check
from api_fakes import BOS, FakeEngine, model_info

from jaxserve.api.generation_config import sampling_defaults
from jaxserve.errors import ModelLoadError

MakeApi = Callable[..., Api]
BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
SHIPPED = {"temperature": 0.25, "top_p": 0.5, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5}


@BOTH
@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("story",), "story"),
        (("story",), "accounts/fireworks/models/story"),
        (("accounts/fireworks/models/story",), "story"),
        (("Qwen/Qwen3-0.6B", "small"), "Qwen3-0.6B"),
        (("Qwen/Qwen3-0.6B", "small"), "accounts/fireworks/models/Qwen3-0.6B"),
        (("Qwen/Qwen3-0.6B", "small"), "accounts/fireworks/models/small"),
        (("accounts/mine/models/x",), "accounts/fireworks/models/x"),
        (("story",), "accounts/mine/models/story#accounts/mine/deployments/d-1"),
        (("accounts/mine/models/x",), "accounts/mine/models/x#accounts/other/deployments/d-1"),
        (("story",), "story#accounts/mine/deployments/d-1"),
    ],
)
def test_names_and_their_aliases(make_api: MakeApi, endpoint: str, names: tuple[str, ...], asked: str) -> None:
    api = make_api(model=model_info(names=names))
    assert api.send(endpoint, model=asked)["model"] == asked
    assert api.http.get(f"/v1/models/{quote(asked)}").json()["id"] == asked
    assert [card["id"] for card in api.http.get("/v1/models").json()["data"]] == list(names)


@pytest.mark.parametrize(
    "asked",
    [
        "fak",
        "fake/",
        "accounts/fireworks/models/",
        "accounts/test/models/other",
        "accounts//models/fake",
        "accounts/a/b/models/fake",
        "models/fake",
        "other#accounts/test/deployments/d",
        "fake#d",
        "fake#accounts/test/deployments/",
        "fake#accounts/test/models/fake",
    ],
)
def test_other_names_are_told_what_is_served(api: Api, asked: str) -> None:
    answers = [api.refuse("chat", 404, model=asked), api.refuse("completions", 404, model=asked)]
    answers.append(api.http.get(f"/v1/models/{quote(asked)}").json())
    for answer in answers:
        check(answer, "ErrorResponse")
        assert "'fake', 'accounts/test/models/fake'" in answer["error"]["message"]
        assert "/v1" in answer["error"]["message"]


@pytest.mark.parametrize("path", ["/chat", "/v2/models", "/v1/v1/v1/models", "/inference/models", "/v1/nothing"])
def test_other_paths_are_told_the_base_url(make_api: MakeApi, path: str) -> None:
    response = make_api().http.get(path)
    assert response.status_code == 404
    message = response.json()["error"]["message"]
    assert path in message
    assert "http://testserver/v1 or http://testserver/inference/v1" in message
    assert "'fake'" in message
    assert "fake" not in make_api(api_keys=("key",)).http.get("/chat").text


@pytest.mark.parametrize("prefix", ["/v1/v1", "/inference/v1/v1"])
def test_v1_twice_is_v1(api: Api, make_api: MakeApi, prefix: str) -> None:
    assert api.http.get(f"{prefix}/models").json() == api.http.get("/v1/models").json()
    assert api.http.get(f"{prefix}/models/fake").status_code == 200
    for path, body in ((CHAT, api.chat_body()), (COMPLETIONS, api.body("completions"))):
        assert api.post(prefix + path.removeprefix("/v1"), body).status_code == 200
    assert make_api(api_keys=("key",)).http.get(f"{prefix}/models").status_code == 401


def test_clients_that_append_v1_themselves(live: Any) -> None:
    client = openai.OpenAI(base_url=live.url + "/v1/v1", api_key="none", max_retries=0, timeout=20)
    answer = client.chat.completions.create(
        model="accounts/fireworks/models/fake", messages=[{"role": "user", "content": "a"}]
    )
    assert answer.choices[0].message.content == "Hello world"
    fireworks = pytest.importorskip("fireworks")
    other = fireworks.Fireworks(base_url=live.url + "/v1", api_key="none", max_retries=0)
    assert other.completions.create(model="fake", prompt="a").choices[0].text == "Hello world"


@pytest.mark.parametrize(
    ("shipped", "defaults"),
    [
        (SHIPPED, SHIPPED),
        ({}, {}),
        ({"temperature": None, "top_k": None}, {}),
        ({"do_sample": True, "eos_token_id": [1], "typical_p": 0.5, "temperature": 1.0}, {"temperature": 1.0}),
        (
            {"top_k": -1, "temperature": 7.5, "repetition_penalty": 3},
            {"top_k": 0, "temperature": 2.0, "repetition_penalty": 2},
        ),
        ({"top_k": 1000, "top_p": "0.9", "min_p": True}, {"top_k": 100}),
    ],
)
def test_what_models_ship(tmp_path: Path, shipped: dict[str, Any], defaults: dict[str, float]) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(shipped))
    assert sampling_defaults(tmp_path) == defaults


def test_models_that_ship_nothing_or_nonsense(tmp_path: Path) -> None:
    assert sampling_defaults(tmp_path) == {}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelLoadError):
        sampling_defaults(tmp_path)


@BOTH
@pytest.mark.parametrize("knob", SHIPPED)
def test_defaults_hold_where_a_request_is_silent(make_api: MakeApi, endpoint: str, knob: str) -> None:
    api = make_api(model=model_info(sampling_defaults=SHIPPED))
    for fields, value in (({}, SHIPPED[knob]), ({knob: None}, SHIPPED[knob]), ({knob: 1}, 1)):
        api.send(endpoint, **fields)
        assert getattr(api.last().sampling, knob) == value
    assert api.http.get("/v1/models/fake").json()["sampling_defaults"] == SHIPPED


@BOTH
def test_answers_say_how_they_were_drawn(make_api: MakeApi, endpoint: str) -> None:
    api = make_api(FakeEngine(), model=model_info(sampling_defaults={"top_p": 0.5}))
    for stream in (False, True):
        response = api.post(
            CHAT if endpoint == "chat" else COMPLETIONS, api.body(endpoint, stream=stream, min_p=0.25, seed=BOS)
        )
        options = json.loads(response.headers["fireworks-sampling-options"])
        assert (options["top_p"], options["min_p"], options["temperature"], options["seed"]) == (0.5, 0.25, 1.0, BOS)
        assert "logit_bias" not in options
