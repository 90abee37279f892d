"""Strict building blocks: a JSON string is never a number, a boolean never an integer, an unknown field an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_KEYS = 128
"""Keys of one object: twice as many as any object of the contract has fields."""
MAX_WRONG_OBJECTS = 200
"""Wrong objects after which a request is not looked at any further: who sends more needs no complete list."""


@dataclass
class Patience:
    """How many wrong objects one validation still puts up with; handed over as its context."""

    left: int = MAX_WRONG_OBJECTS


class OutOfPatience(Exception):
    """The validation has met too many wrong objects. No finding of the schema, so that it ends everything at once."""


class StrictModel(BaseModel):
    """An object of a request: no unknown fields, no type conversion, no NaN or infinity.

    A null carries no wish: a key that is null is as good as absent, whatever the key. Clients send back the objects
    that they were given, and their libraries fill these up with nulls.

    Refusing must not cost more than honouring: objects with absurdly many keys are refused by their number, and a
    validation whose `Patience` has run out ends.
    """

    carried: ClassVar[frozenset[str]] = frozenset()
    """Keys that clients' own objects carry along and that tell a server nothing: left out."""
    null_means: ClassVar[Mapping[str, str]] = {}
    """What a null stands for in a required field that has one possible value."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, populate_by_name=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _patiently(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(value, dict) and len(value) > MAX_KEYS:
            raise PydanticCustomError("too_many_keys", "holds more than {limit} keys", {"limit": MAX_KEYS})
        try:
            return handler(cls._without_nulls(value))
        except ValidationError:
            if isinstance(info.context, Patience):
                info.context.left -= 1
                if info.context.left < 0:
                    raise OutOfPatience from None
            raise

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
TokenId = Annotated[int, Field(ge=0), integral]
"""A token id; the vocabulary bounds it from above, which only lowering can check."""
CacheControl = dict[str, Any]
NO_EFFECT = "Accepted without an effect: prompts are cached by their tokens, wherever they are cut."
"""Of `cache_control`, which Anthropic's clients set."""
