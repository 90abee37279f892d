"""Strict building blocks: a JSON string is never a number, a boolean never an integer, an unknown field an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

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

    Refusing must not cost more than honouring: objects with absurdly many keys are refused by their number, and a
    validation whose `Patience` has run out ends.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, populate_by_name=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _patiently(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(value, dict) and len(value) > MAX_KEYS:
            raise PydanticCustomError("too_many_keys", "holds more than {limit} keys", {"limit": MAX_KEYS})
        try:
            return handler(value)
        except ValidationError:
            if isinstance(info.context, Patience):
                info.context.left -= 1
                if info.context.left < 0:
                    raise OutOfPatience from None
            raise


def whole_number(value: Any) -> Any:
    """JSON Schema's integer: 1.0 is one, 1.5 and true are not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


integral = BeforeValidator(whole_number)
"""Put behind an integer's bounds, so that these stay visible in the JSON Schema."""
Int = Annotated[int, integral]
"""An integer of any size."""
TokenId = Annotated[int, Field(ge=0), integral]
"""A token id; the vocabulary bounds it from above, which only lowering can check."""
