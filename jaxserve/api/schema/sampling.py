"""The sampling fields of a request, made from the knobs: types, ranges and meanings stand in `sampling.params`."""

from __future__ import annotations

import math
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import Field, create_model

from jaxserve.api.schema.base import StrictModel, integral
from jaxserve.sampling.params import KNOBS, MAX_LOGIT_BIAS, Knob, SamplingParams


def _number(kind: Any, knob: Knob) -> Any:
    bounds: dict[str, Any] = {}
    if math.isfinite(knob.low):
        bounds["gt" if knob.above_low else "ge"] = knob.low
    if math.isfinite(knob.high):
        bounds["le"] = knob.high
    # The whole number's validator stands behind the bounds, so that these stay visible in the JSON Schema.
    return Annotated[kind, Field(**bounds), integral] if kind is int else Annotated[kind, Field(**bounds)]


def _type(name: str, kind: Any, knob: Knob) -> Any:
    if name == "top_k":  # -1 is how vLLM's clients turn it off
        return _number(int, knob) | Literal[-1]
    if name == "logit_bias":  # JSON's keys are texts
        return Annotated[GenericAlias(dict, (str, _number(float, knob))), Field(max_length=MAX_LOGIT_BIAS)]
    return _number(int if kind is int else float, knob)


def _fields() -> dict[str, Any]:
    kinds = get_type_hints(SamplingParams)
    return {
        name: (
            _type(name, kinds[name], knob) | None,
            Field(None, description=knob.description, examples=None if knob.example is None else [knob.example]),
        )
        for name, knob in KNOBS.items()
    }


if TYPE_CHECKING:

    class SamplingFields(StrictModel):
        """One field for each knob; these two are translated by name."""

        top_k: int | None = None
        seed: int | None = None
        logit_bias: dict[str, float] | None = None

else:
    SamplingFields = create_model("SamplingFields", __base__=StrictModel, **_fields())
