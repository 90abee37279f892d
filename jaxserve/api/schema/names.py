"""Which fields an object of a request may have: for those who misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

_LONGEST = 64
"""Characters of a name that is looked up: comparing texts takes the product of their lengths."""


def nearest_field(schema: type[BaseModel], loc: Sequence[str | int]) -> str | None:
    """The field that a client may have meant by an unknown one; None when no name is near.

    Args:
        schema: of the request.
        loc: path to the unknown field, without names of union members.
    """
    *place, name = loc
    if not isinstance(name, str) or len(name) > _LONGEST:
        return None
    known = {field for model in _models_at(schema, place) for field in fields_of(model)}
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)), None)


def _models_at(schema: type[BaseModel], place: Sequence[str | int]) -> list[type[BaseModel]]:
    """The kinds of object that may stand at a place."""
    here = [schema]
    for part in (part for part in place if isinstance(part, str)):
        fields = [field for model in here for name, field in fields_of(model).items() if name == part]
        here = [model for field in fields for model in models_in(field.annotation)]
    return here


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    """Its fields, by the names that requests use."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The kinds of object that a type allows, at any depth of unions and lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
