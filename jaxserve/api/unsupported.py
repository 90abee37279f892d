"""Fields that are in the contract and not built yet: refused by name. Building one means deleting its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest
from jaxserve.errors import InvalidRequest


@dataclass(frozen=True)
class Unsupported:
    """One refusal."""

    field: str
    what: str
    """The thing that can't be done, for the message."""
    asked: Callable[[GenerationRequest], bool]
    """Whether the request really asks for it; neutral values pass."""


def _given(field: str) -> Callable[[GenerationRequest], bool]:
    return lambda request: bool(getattr(request, field, None) not in (None, "", []))


def _chat(test: Callable[[ChatCompletionRequest], bool]) -> Callable[[GenerationRequest], bool]:
    return lambda request: isinstance(request, ChatCompletionRequest) and test(request)


def _has_images(request: ChatCompletionRequest) -> bool:
    contents = [message.content for message in request.messages if isinstance(message.content, list)]
    return any(part.image_url is not None for content in contents for part in content)


UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported("messages", "images", _chat(_has_images)),
    Unsupported("images", "images", lambda request: isinstance(request, CompletionRequest) and bool(request.images)),
    Unsupported("speculation", "speculative decoding", _given("speculation")),
    Unsupported("prediction", "speculative decoding", _given("prediction")),
)


def refuse_unsupported(request: GenerationRequest) -> None:
    """Raises `InvalidRequest` for the first field whose effect isn't built."""
    for entry in UNSUPPORTED:
        if entry.asked(request):
            raise InvalidRequest(entry.field, f"{entry.field}: {entry.what} is not supported by this server yet")
