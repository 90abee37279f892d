"""Lengths that are checked before the schema looks inside: a refusal must not cost more than an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxserve.api.errors import ApiError
from jaxserve.options import Limits
from jaxserve.sampling.params import MAX_LOGIT_BIAS

_MOST: dict[str, tuple[Callable[[Limits], int], str]] = {
    "messages": (lambda limits: limits.max_messages, "messages"),
    "tools": (lambda limits: limits.max_tools, "tools"),
    "functions": (lambda limits: limits.max_tools, "functions"),
    "logit_bias": (lambda limits: MAX_LOGIT_BIAS, "entries"),
    "metadata": (lambda limits: limits.max_metadata, "entries"),
    "images": (lambda limits: limits.max_images, "images"),
    "speculation": (lambda limits: limits.max_json_values // 8, "tokens"),
}
"""Fields that hold lists or dictionaries: the most of what they may hold. Objects that the schema describes are bounded
by `schema.base.MAX_KEYS`, at any depth."""


def check_lengths(body: Mapping[str, Any], limits: Limits) -> None:
    """Refuses lists and dictionaries of absurd sizes, by name.

    Raises:
        ApiError: 422, one of them holds too much.
    """
    for field, (most, what) in _MOST.items():
        value = body.get(field)
        if isinstance(value, list | dict) and len(value) > most(limits):
            raise ApiError(422, f"{field}: more than {most(limits)} {what}", loc=("body", field), code="too_long")
