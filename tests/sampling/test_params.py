"""Out-of-range and contradictory values are refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jaxserve.errors import InvalidRequest
from jaxserve.sampling.params import MAX_LOGIT_BIAS, SamplingParams, check_token_ids

RANGES = {
    "temperature": (0, 2),
    "top_k": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "repetition_penalty": (0, 2),
}


@pytest.mark.parametrize("name", RANGES)
def test_bounds_are_accepted_and_what_lies_beyond_is_refused(name: str) -> None:
    low, high = RANGES[name]
    for value in (low, high):
        assert getattr(SamplingParams(**{name: value}), name) == value
    for value in (low - 1, high + 1, math.nan, math.inf, -math.inf):
        with pytest.raises(InvalidRequest) as refused:
            SamplingParams(**{name: value})
        assert refused.value.field == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mirostat_target", 0.0),
        ("mirostat_target", -3.0),
        ("mirostat_target", math.nan),
        ("mirostat_target", math.inf),
        ("mirostat_lr", -0.1),
        ("mirostat_lr", math.nan),
        ("mirostat_lr", math.inf),
        ("logit_bias", ((5, 100.5),)),
        ("logit_bias", ((5, math.nan),)),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", ((5, 1.0), (5, 2.0))),
        ("logit_bias", tuple((i, 1.0) for i in range(MAX_LOGIT_BIAS + 1))),
    ],
)
def test_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SamplingParams(**{field: value})
    assert refused.value.field == field


def test_token_ids_outside_the_vocabulary_are_refused() -> None:
    params = SamplingParams(logit_bias=((3, 1.0), (99, -1.0)))
    check_token_ids(params, 100)
    with pytest.raises(InvalidRequest, match="99"):
        check_token_ids(params, 99)
