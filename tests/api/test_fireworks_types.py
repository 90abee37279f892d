"""Every field, and every named value, of the fireworks package's requests is a field here: a release with a new one
fails this test until it is served or stands among those that are refused."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel
from typing_extensions import is_typeddict

from jaxserve.api.dialects.anthropic_schema import MessagesRequest
from jaxserve.api.schema.names import fields_of, models_in
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest

pytest.importorskip("fireworks")
from fireworks.types import completion_create_params, message_create_params
from fireworks.types.chat import completion_create_params as chat_params

DOCUMENT = "documents are not read here"
REFUSED = {
    "CompletionRequest.reasoning_history": "a plain prompt has no earlier messages",
    "MessagesRequest.thinking.type: 'adaptive'": "no model here decides for itself how much to reason",
    "content.type: 'redacted_thinking'": "no reasoning is hidden here",
    "content.data": "of such reasoning",
    "content.type: 'document'": DOCUMENT,
    "content.context": DOCUMENT,
    "content.title": DOCUMENT,
    "content.source.media_type: 'application/pdf'": DOCUMENT,
    "content.source.media_type: 'text/plain'": DOCUMENT,
    "content.source.type: 'text'": DOCUMENT,
    "content.source.type: 'content'": DOCUMENT,
    "content.source.content": DOCUMENT,
}
"""Ends of the paths of fields and values that are refused by their name, and why."""


def members(annotation: Any) -> Iterator[Any]:
    """The alternatives of a type, without wrappers and containers."""
    if get_origin(annotation) is Literal or is_typeddict(annotation):
        yield annotation
    for part in () if get_origin(annotation) is Literal else get_args(annotation):
        yield from members(part)


def literals(annotation: Any) -> set[Any]:
    """The values of its literals, those of a union's members and of lists."""
    found = [member for member in members(annotation) if get_origin(member) is Literal]
    return {value for literal in found for value in get_args(literal)}


def differences(theirs: Any, ours: list[type[BaseModel]], path: str, seen: set[Any]) -> Iterator[str]:
    """Fields and values of a typed dictionary that none of our models has."""
    if (theirs, *ours) in seen:
        return
    seen.add((theirs, *ours))
    known: dict[str, list[Any]] = {}
    for model in ours:
        for name, field in fields_of(model).items():
            known.setdefault(name, []).append(field.annotation)
        known |= {name: [Any] for name in getattr(model, "carried", ()) if name not in known}
    for name, annotation in get_type_hints(theirs, include_extras=True).items():
        where = f"{path}.{name}"
        if name not in known:
            yield where
            continue
        if known[name] == [Any]:  # carried along by clients, and left out
            continue
        union = Union[tuple(known[name])]  # noqa: UP007 - of any number of types
        whole = {part for part in _parts(union) if part in (str, bool)}
        missing = {value for value in literals(annotation) - literals(union) if type(value) not in whole}
        yield from (f"{where}: {value!r}" for value in sorted(missing, key=str))
        for inner in (member for member in members(annotation) if get_origin(member) is not Literal):
            models = list(models_in(union))
            if models:
                yield from differences(inner, models, where, seen)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _parts(part)


def found(theirs: Any, ours: type[BaseModel]) -> list[str]:
    all_ = differences(theirs, [ours], ours.__name__, set())
    return [one for one in all_ if not any(one.endswith(refused) for refused in REFUSED)]


def test_chat_completions() -> None:
    for kind in get_args(chat_params.CompletionCreateParams):
        assert found(kind, ChatCompletionRequest) == []


def test_completions() -> None:
    for kind in get_args(completion_create_params.CompletionCreateParams):
        assert found(kind, CompletionRequest) == []


def test_messages() -> None:
    assert found(message_create_params.MessageCreateParams, MessagesRequest) == []


def test_a_new_field_is_seen() -> None:
    """The walk goes into messages, their parts, tools and formats."""

    class Part(BaseModel):
        type: Literal["text"]
        text: str

    class Message(BaseModel):
        role: str
        content: str | list[Part]

    class Request(BaseModel):
        messages: list[Message]
        model: str
        thinking: Literal["on"]

    seen = found(get_args(chat_params.CompletionCreateParams)[0], Request)
    for missing in ("Request.top_k", "Request.messages.tool_calls", "Request.messages.content.image_url"):
        assert missing in seen
    assert "Request.messages.content" not in seen
