"""What a request's schema found wrong, as one error: each finding once, where it really is, and never too many."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jaxserve.api.errors import ApiError, Location, dotted, short_path, shortened
from jaxserve.api.schema.names import nearest_field
from jaxserve.api.schema.responses import ValidationDetail

MAX_FINDINGS = 20
"""Findings that are listed; the rest is counted."""
_MAX_MENTIONED = 8
"""Findings that the message mentions too."""
_MAX_VALUE = 40
"""Characters of an unknown field's value that are sent back."""
_LENIENT = "A server that was started with --lenient ignores unknown fields."


def validation_error(error: ValidationError, schema: type[BaseModel], body: Any, *, at_least: int = 0) -> ApiError:
    """The findings of the schema.

    Args:
        error: what was found.
        schema: of the request.
        body: the request.
        at_least: how many findings there are at least, where not all were looked for; 0 = these are all.
    """
    merged: dict[Location, ValidationDetail] = {}
    for finding in findings_of(error):
        loc = locate(finding, body)
        unknown = finding["type"] == "extra_forbidden"
        message = _not_permitted(loc, body) if unknown else _sentence(finding["msg"])
        known = merged.get(loc)
        if known is None:
            merged[loc] = {"loc": ["body", *short_path(loc)], "msg": message, "type": finding["type"]}
        elif message not in known["msg"]:
            known["msg"] += f", or: {message}"
    outer = _beginnings(merged)
    found = [(loc, item) for loc, item in merged.items() if not (loc in outer and _is_vague(item))]
    for loc, item in found[:_MAX_MENTIONED]:
        if item["type"] == "extra_forbidden" and (meant := nearest_field(schema, loc)) is not None:
            item["msg"] += f" (did you mean {meant!r}?)"
    message = "; ".join(_mentioned(loc, item) for loc, item in found[:_MAX_MENTIONED])
    rest = max(len(found), at_least) - min(len(found), _MAX_MENTIONED)
    if rest:
        message += f"; and {'at least ' if at_least else ''}{rest} more"
    if any(item["type"] == "extra_forbidden" for _, item in found):
        message += ". " + _LENIENT
    first, detail = found[0], [item for _, item in found[:MAX_FINDINGS]]
    return ApiError(422, message, loc=("body", *first[0]), code=first[1]["type"], detail=detail)


def _mentioned(loc: Location, item: ValidationDetail) -> str:
    return item["msg"] if item["type"] == "extra_forbidden" else f"{dotted(loc) or 'body'}: {item['msg']}"


def _not_permitted(loc: Location, body: Any) -> str:
    """In the words of Fireworks AI's own service, which its clients look for."""
    value = reduce(lambda here, part: here[part], loc, body)
    return f"Extra inputs are not permitted, field: '{dotted(loc)}', value: '{shortened(_shown(value), _MAX_VALUE)}'"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "{...}" if isinstance(value, dict) else "[...]"
    return value if isinstance(value, str) else json.dumps(value)


def findings_of(error: ValidationError) -> list[ErrorDetails]:
    """The schema's findings without what was sent."""
    return error.errors(include_url=False, include_context=False, include_input=False)


def _beginnings(locs: Iterable[Location]) -> set[Location]:
    """Every path that one of the paths goes through."""
    return {loc[:length] for loc in locs for length in range(len(loc))}


def _is_vague(finding: ValidationDetail) -> bool:
    """Whether it may only say that a union's other member was meant: then a deeper finding knows what is wrong."""
    return finding["type"].endswith(("_type", "literal_error"))


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:]


def locate(finding: ErrorDetails, body: Any) -> Location:
    """The path into `body` that a finding means: without the names of union members."""
    path: list[str | int] = []
    here = body
    for part in finding["loc"]:
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and part in range(len(here))):
            here = here[part]  # type: ignore[index]
            path.append(part)
    if finding["type"] == "missing":
        path.append(finding["loc"][-1])
    return tuple(path)
