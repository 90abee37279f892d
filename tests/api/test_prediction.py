"""`speculation` and `prediction`: what reaches the engine, what the answer says of it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from api_client import Api
from api_fakes import CONTEXT, THINK, VOCABULARY, ids_of

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
TEXT = "Hello moon"
PARTS = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "moon"}]


@BOTH
@pytest.mark.proves("speculation", "prediction")
@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"speculation": TEXT}, ids_of(TEXT)),
        ({"speculation": [1, 2, VOCABULARY - 1]}, [1, 2, VOCABULARY - 1]),
        ({"prediction": TEXT}, ids_of(TEXT)),
        ({"prediction": {"type": "content", "content": TEXT}}, ids_of(TEXT)),
        ({"prediction": {"content": PARTS}}, ids_of(TEXT)),
        ({"prediction": "<think>"}, [THINK]),
        ({"prediction": "<think>", "safe_tokenization": True}, [*b"<think>"]),
        ({"speculation": "", "prediction": TEXT}, ids_of(TEXT)),
        ({"speculation": [], "prediction": None}, []),
        ({"prediction": {"content": ""}}, []),
        ({"prediction": {"content": []}}, []),
    ],
)
def test_the_engine_gets_the_tokens(api: Api, endpoint: str, fields: dict[str, Any], tokens: list[int]) -> None:
    api.send(endpoint, **fields)
    assert list(api.last().prediction) == tokens


@BOTH
def test_every_prompt_and_choice_has_the_prediction(api: Api, endpoint: str) -> None:
    """It says nothing of their number, and may be longer than what is asked for."""
    more = {"prompt": ["a", "b"]} if endpoint == "completions" else {}
    answer = api.send(endpoint, n=2, max_tokens=3, prediction="Hello world and more", **more)
    prompts = 1 + bool(more)
    assert len(answer["choices"]) == 2 * prompts
    assert [len(one.prediction) for one in api.engine.requests[-prompts:]] == [20] * prompts


@BOTH
def test_what_became_of_it(api: Api, endpoint: str) -> None:
    """The fake engine tries every predicted token: of "Hello moon" seven of ten are in "Hello world"."""
    answer = api.send(endpoint, prediction=TEXT, perf_metrics_in_response=True)
    assert answer["usage"]["completion_tokens_details"] == {
        "accepted_prediction_tokens": 7,
        "rejected_prediction_tokens": 3,
    }
    metrics = answer["perf_metrics"]
    assert metrics["speculation-prompt-tokens"] == 10
    assert metrics["speculation-prompt-matched-tokens"] == 7
    assert metrics["speculation-generated-tokens"] == 10
    assert metrics["speculation-acceptance"] == "0.700"
    path = "/v1/chat/completions" if endpoint == "chat" else "/v1/completions"
    headers = api.post(path, api.body(endpoint, prediction=TEXT)).headers
    assert headers["fireworks-speculation-prompt-matched-tokens"] == "7"
    last = api.stream(endpoint, prediction=TEXT)[-1]
    assert last["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] == 7
    assert "completion_tokens_details" not in api.send(endpoint)["usage"]


@BOTH
@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"speculation": TEXT, "prediction": TEXT}, "prediction", "can't be given together with speculation"),
        ({"speculation": [1, VOCABULARY]}, "speculation.1", f"token id {VOCABULARY} is outside the vocabulary"),
        ({"prediction": {"content": [{"type": "refusal", "refusal": "no"}]}}, "prediction", "only text"),
        ({"prediction": {"type": "other", "content": TEXT}}, "prediction", ""),
    ],
)
def test_what_is_refused(api: Api, endpoint: str, fields: dict[str, Any], param: str, message: str) -> None:
    error = api.refuse(endpoint, 422, **fields)["error"]
    assert error["param"].startswith(param)
    assert message in error["message"]


@BOTH
@pytest.mark.parametrize("fields", [{"speculation": [1] * (CONTEXT + 1)}, {"prediction": "x" * (CONTEXT + 1)}])
def test_one_longer_than_the_context_is_refused(api: Api, endpoint: str, fields: dict[str, Any]) -> None:
    assert api.refuse(endpoint, 400, **fields)["error"]["param"] == next(iter(fields))
