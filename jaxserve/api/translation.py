"""A request in the words of other servers' clients to the same request in the contract's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar

from jaxserve.api.schema.requests import GenerationRequest
from jaxserve.api.schema.tools import ResponseFormat
from jaxserve.errors import InvalidRequest

R = TypeVar("R", bound=GenerationRequest)


def in_our_words(request: R) -> R:
    """The request without fields that say what others of its fields can say.

    Raises:
        InvalidRequest: it says something twice.
    """
    update: dict[str, Any] = {}
    if request.top_k == -1:
        update["top_k"] = 0
    if request.safety_identifier is not None:
        update["user"] = request.safety_identifier
    wanted = list(_formats(request))
    if wanted:
        field, format_ = wanted[0]
        if len(wanted) > 1 or request.response_format is not None:
            other = wanted[1][0] if len(wanted) > 1 else "response_format"
            raise InvalidRequest(field, f"{field} can't be given together with {other}")
        update["response_format"] = ResponseFormat.model_validate(format_)
    return request.model_copy(update=update) if update else request


def _formats(request: GenerationRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field that asks for a format, and what it asks for."""
    structured = request.structured_outputs
    asked = {
        "json_schema": (("guided_json", request.guided_json), ("structured_outputs", structured and structured.json_)),
        "grammar": (
            ("guided_grammar", request.guided_grammar),
            ("structured_outputs", structured and structured.grammar),
        ),
        "choice": (("guided_choice", request.guided_choice), ("structured_outputs", structured and structured.choice)),
    }
    for kind, fields in asked.items():
        for field, value in fields:
            if value is not None:
                yield field, {"type": kind, kind: value} if kind != "choice" else _one_of(value)
    if structured is not None and structured.json_object:
        yield "structured_outputs", {"type": "json_object"}


def _one_of(texts: Any) -> dict[str, Any]:
    """A grammar of these texts. GBNF's literals are JSON's."""
    return {"type": "grammar", "grammar": "root ::= " + " | ".join(json.dumps(t, ensure_ascii=False) for t in texts)}
