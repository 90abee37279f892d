"""Every sampling field reaches the engine, on both endpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from api_client import Api
from api_fakes import FakeEngine, say

from jaxserve.sampling import params
from jaxserve.sampling.params import SamplingParams

BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])
KNOBS = {
    "temperature": 0.25,
    "top_k": 17,
    "top_p": 0.5,
    "min_p": 0.125,
    "typical_p": 0.75,
    "frequency_penalty": -1.5,
    "presence_penalty": 1.25,
    "repetition_penalty": 1.75,
    "mirostat_target": 3.5,
    "mirostat_lr": 0.3,
}


@BOTH
@pytest.mark.proves(
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "mirostat_target",
    "mirostat_lr",
)
@pytest.mark.parametrize(("knob", "value"), list(KNOBS.items()))
def test_a_knob_reaches_the_engine(api: Api, endpoint: str, knob: str, value: float) -> None:
    api.send(endpoint, **{knob: value})
    sampling = api.last().sampling
    assert getattr(sampling, knob) == value
    neutral = SamplingParams()
    others = [name for name in KNOBS if name != knob]
    assert [getattr(sampling, name) for name in others] == [getattr(neutral, name) for name in others]


def test_every_knob_is_proved() -> None:
    assert {*KNOBS, "seed", "logit_bias"} == set(params.KNOBS)


@BOTH
@pytest.mark.parametrize("knob", list(KNOBS))
def test_beyond_the_range_is_refused(api: Api, endpoint: str, knob: str) -> None:
    spec = params.KNOBS[knob]
    below = spec.low - (2 if knob == "top_k" else 1)  # -1 is another way to turn top_k off
    beyond = [spec.low if spec.above_low else below, *([] if spec.high == math.inf else [spec.high + 1])]
    for value in beyond:
        assert api.refuse(endpoint, 422, **{knob: value})["error"]["param"] == knob


@BOTH
@pytest.mark.parametrize("knob", list(KNOBS))
def test_null_means_not_given(api: Api, endpoint: str, knob: str) -> None:
    api.send(endpoint, **{knob: None})
    assert getattr(api.last().sampling, knob) == getattr(SamplingParams(), knob)


@BOTH
@pytest.mark.proves("seed")
@pytest.mark.parametrize(
    ("seed", "effective"), [(0, 0), (-5, -5), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 + 3, 3), (10**30, None)]
)
def test_any_integer_is_a_seed(api: Api, endpoint: str, seed: int, effective: int | None) -> None:
    api.send(endpoint, seed=seed)
    got = api.last().sampling.seed
    assert got == effective if effective is not None else (got - seed) % 2**64 == 0
    assert -(2**63) <= got < 2**63


@BOTH
def test_without_a_seed_the_server_picks_another_each_time(api: Api, endpoint: str) -> None:
    seeds = set()
    for _ in range(4):
        api.send(endpoint)
        seeds.add(api.last().sampling.seed)
    assert len(seeds) == 4


@BOTH
@pytest.mark.proves("logit_bias")
def test_logit_bias(api: Api, endpoint: str) -> None:
    api.send(endpoint, logit_bias={"0": -100, "269": 2.5})
    assert api.last().sampling.logit_bias == ((0, -100.0), (269, 2.5))


@BOTH
@pytest.mark.parametrize(
    ("bias", "param"),
    [
        ({"270": 1}, "logit_bias"),
        ({"-1": 1}, "logit_bias"),
        ({"hello": 1}, "logit_bias"),
        ({"1.0": 1}, "logit_bias"),
        ({"٣": 1}, "logit_bias"),
        ({"9" * 4000: 1}, "logit_bias"),
        ({"1": 1, "01": 2}, "logit_bias"),
        ({"1": 100.5}, "logit_bias.1"),
        ({"1": "1"}, "logit_bias.1"),
        ({"1": True}, "logit_bias.1"),
        ({str(i): 1 for i in range(1025)}, "logit_bias"),
        ([1], "logit_bias"),
    ],
)
def test_wrong_logit_bias(api: Api, endpoint: str, bias: Any, param: str) -> None:
    error = api.refuse(endpoint, 422, logit_bias=bias)["error"]
    assert error["param"].startswith(param)
    assert "logit_bias" in error["message"]


@BOTH
@pytest.mark.proves("ignore_eos")
def test_ignore_eos(api: Api, endpoint: str) -> None:
    plain = api.send(endpoint, max_tokens=14)
    ignored = api.send(endpoint, max_tokens=14, ignore_eos=True)
    assert api.last().stop_token_ids == ()
    assert plain["choices"][0]["finish_reason"] == "stop"
    assert ignored["choices"][0]["finish_reason"] == "length"
    assert ignored["usage"]["completion_tokens"] == 14


@BOTH
@pytest.mark.proves("stop")
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("o w", "Hell"),
        (["zzz", "rl"], "Hello wo"),
        ([], "Hello world"),
        (None, "Hello world"),
        ("H", ""),
        (["d", "ld"], "Hello wor"),
    ],
)
def test_stop(api: Api, endpoint: str, stop: Any, text: str) -> None:
    choice = api.send(endpoint, stop=stop)["choices"][0]
    assert choice.get("text", choice.get("message", {}).get("content")) == text
    assert choice["finish_reason"] == "stop"


@BOTH
@pytest.mark.proves("stop")
@pytest.mark.parametrize(
    ("stop", "ignore_eos"),
    [
        ("<|end|>", False),
        ("<|user|>", True),
        (["x", "</s>"], True),
        ("<|end|>\n", False),
        ("</s><|user|>", True),
        ("!</s>", True),
    ],
)
def test_a_stop_that_spells_a_special_token(
    make_api: Callable[..., Api], endpoint: str, stop: Any, ignore_eos: bool
) -> None:
    """It ends the output though special tokens are not part of its text."""
    spelled = stop if isinstance(stop, str) else stop[-1]
    for chat_format in ("generic", "hermes"):  # one hides special tokens in chat, the other reads them
        _stops_at(
            make_api(FakeEngine(reply=say(f"Hello{spelled} world", eos=False)), chat_format=chat_format),
            endpoint,
            stop,
            ignore_eos,
        )


def _stops_at(api: Api, endpoint: str, stop: Any, ignore_eos: bool) -> None:
    choice = api.send(endpoint, stop=stop, ignore_eos=ignore_eos, max_tokens=30)["choices"][0]
    assert choice.get("text", choice.get("message", {}).get("content")) == "Hello"
    assert choice["finish_reason"] == "stop"


@BOTH
def test_a_stop_text_never_leaks_into_a_stream(api: Api, endpoint: str) -> None:
    chunks = api.stream(endpoint, stop="o world", logprobs=True)
    pieces = [c.get("text", c.get("delta", {}).get("content")) or "" for chunk in chunks for c in chunk["choices"]]
    assert "".join(pieces) == "Hell"
    offsets = [
        e["text_offset"] for chunk in chunks for c in chunk["choices"] for e in c.get("logprobs", {}).get("content", [])
    ]
    assert offsets == [0, 1, 2, 3] + [4] * 7
