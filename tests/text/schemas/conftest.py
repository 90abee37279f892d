"""Grammars of schemas over single bytes, asked whether they take a value."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from llguidance import LLMatcher

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.lark import Lark
from jaxserve.text.grammar.llg import Vocabulary, compile_lark
from jaxserve.text.grammar.refusals import refusal_of

_BYTES = Vocabulary((*(bytes([byte]) for byte in range(256)), b""), (256,), (256,), None).build(list)

Grammar = Callable[[Any], bool]


def grammar_of(schema: Any, *, open_objects: bool = False) -> Grammar:
    """Whether the grammar of a schema takes a value, written without layout.

    Raises:
        InvalidRequest: the schema is refused.
    """
    lark = Lark({}, open_objects=open_objects)
    matcher = compile_lark(_BYTES, lark.finish(lark.schema(schema, "schema")))
    if matcher.is_error():
        raise InvalidRequest("schema", refusal_of(matcher.get_error()))
    return lambda value: _takes(matcher, value)


def _takes(matcher: LLMatcher, value: Any) -> bool:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    reader = matcher.deep_copy()
    return bool(reader.consume_tokens(list(text)) and reader.is_accepting())


@pytest.fixture(scope="session")
def grammar() -> Callable[..., Grammar]:
    """Makes the grammar of a schema."""
    return grammar_of
