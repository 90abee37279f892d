"""Strict building blocks: a JSON string is never a number, a boolean never an integer, an unknown field an error."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class StrictModel(BaseModel):
    """An object of a request: no unknown fields, no type conversion, no NaN or infinity."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True, populate_by_name=False
    )


def whole_number(value: Any) -> Any:
    """JSON Schema's integer: 1.0 is one, 1.5 and true are not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


integral = BeforeValidator(whole_number)
"""Put behind an integer's bounds, so that these stay visible in the JSON Schema."""
Int = Annotated[int, integral]
"""An integer of any size."""
TokenId = Annotated[int, Field(ge=0), integral]
"""A token id; the vocabulary bounds it from above, which only lowering can check."""
