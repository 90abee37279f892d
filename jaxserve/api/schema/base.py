"""Strict building blocks: a JSON string is never a number, a boolean never an integer, an unknown field an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class StrictModel(BaseModel):
    """An object of a request: no unknown fields, no type conversion, no NaN or infinity.

    A null carries no wish: a key that is null is as good as absent, whatever the key. Clients send back the objects that
    they were given, and their libraries fill these up with nulls.
    """

    carried: ClassVar[frozenset[str]] = frozenset()
    """Keys that clients' own objects carry along and that tell a server nothing: left out."""
    null_means: ClassVar[Mapping[str, str]] = {}
    """What a null stands for in a required field that has one possible value."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, populate_by_name=False
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = {key: cls.null_means.get(key) if part is None else part for key, part in value.items()}
        return {key: part for key, part in given.items() if part is not None and key not in cls.carried}


def whole_number(value: Any) -> Any:
    """JSON Schema's integer: 1.0 is one, 1.5 and true are not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


integral = BeforeValidator(whole_number)
"""Put behind an integer's bounds, so that these stay visible in the JSON Schema."""
Int = Annotated[int, integral]
"""An integer of any size."""
TokenId = Annotated[int, Field(ge=0), integral]
"""A token id; the vocabulary bounds it from above, which only lowering can check."""
CacheControl = dict[str, Any]
NO_EFFECT = "Accepted without an effect: prompts are cached by their tokens, wherever they are cut."
"""Of `cache_control`, which Anthropic's clients set."""
