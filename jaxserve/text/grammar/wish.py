"""What a request wants its outputs to look like, as one value that the API fills in and the grammars read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxserve.text.formats.tools import Tool


@dataclass(frozen=True)
class OutputWish:
    """Everything that constrains the outputs of one request; the defaults constrain nothing."""

    response_format: Mapping[str, Any] | None = None
    """{"type": "text" | "json_object" | "json_schema" | "grammar", ...} with `schema`, `json_schema` (bare or in
    OpenAI's wrapper) or `grammar`; None = free text."""
    tools: tuple[Tool, ...] = ()
    """Tools the model may call; calls are constrained from their first marker on."""
    forced: bool = False
    """One of the tools must be called: the whole answer is constrained."""
    parallel: bool = True
    """An answer may hold several calls."""
    reasoning: bool = False
    """The model may reason before it answers; reasoning is never constrained."""
    budget: int | None = None
    """Reasoning tokens at most; 0 closes any reasoning as soon as it is open, None = any number."""
    min_tokens: int = 0
    """Tokens before which no end-of-sequence token, and none of `stop_token_ids`, may come."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the output beside the model's."""
    chat: bool = True
    """False for plain completions, where the format's channels don't exist."""
    ignore_eos: bool = False
    """A stop token only comes where the grammar allows nothing else, and then ends the output."""
