"""JSON Schemas before they become grammars: bounded, without what the grammar can't enforce."""

from __future__ import annotations

from typing import Any

from jaxserve.errors import InvalidRequest
from jaxserve.text.schemas.dead_ends import open_dead_ends
from jaxserve.text.schemas.reading import read_schema
from jaxserve.text.schemas.rewriting import Rewriter, TooLarge


def clean_schema(
    schema: Any, place: str, *, relax: bool = False, open_objects: bool = False
) -> tuple[Any, tuple[str, ...]]:
    """A schema that the grammar enforces completely, and the keywords left out of it.

    Args:
        schema: as given by the request.
        place: the request field, for messages.
        relax: leave unsupported keywords out instead of refusing them.
        open_objects: objects take any further keys unless they say otherwise, as JSON Schema has it.

    Raises:
        InvalidRequest: a keyword that can't be enforced, a schema too large or deep, or one that no value satisfies.
    """
    document = read_schema(schema, place, relax=relax)

    def refuse(keyword: str, path: str) -> None:
        if not relax:
            why = "not supported in structured output, as it stands here"
            raise InvalidRequest(place, f"{place}: keyword {why} ({keyword!r} at {path or 'the root'})")
        document.relaxed.append(f"{path}/{keyword}")

    try:
        cleaned = Rewriter(document, refuse, open_objects=open_objects).run()
    except (TooLarge, RecursionError):
        raise InvalidRequest(place, f"{place}: the schema is too large once its keywords are written out") from None
    open_dead_ends(cleaned, lambda why: InvalidRequest(place, f"{place}: not supported: {why}"))
    return cleaned, tuple(document.relaxed)
