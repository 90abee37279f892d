"""What the HTTP room needs from the others, as protocols: the engine and the text services satisfy them as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jaxserve.engine.types import Request, Sink
from jaxserve.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["ChatRenderer", "EngineLike", "TextServices", "Tokenizer"]


class EngineLike(Protocol):
    """Requests in, deltas out. All members are thread-safe and return at once."""

    def submit(self, request: Request, sink: Sink) -> None:
        """Queues a request; its deltas go to `sink`, on any thread.

        Raises:
            Overloaded: the waiting queue is full.
            EngineStopped: the engine no longer runs.
        """

    def abort(self, request_id: str) -> None:
        """Ends a request wherever it is. Idempotent; unknown ids are ignored."""

    @property
    def healthy(self) -> bool:
        """False once the engine has died or was closed."""

    @property
    def ready(self) -> bool:
        """Whether requests are accepted (everything is loaded and compiled)."""

    def stats(self) -> DataclassInstance:
        """A snapshot: a dataclass of numbers, each of which becomes a metric."""


class ChatRenderer(Protocol):
    """The model's chat template."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_args: Any,
    ) -> str:
        """The prompt text of a conversation.

        Raises:
            TemplateError: the template refused these messages.
        """


@dataclass(frozen=True)
class TextServices:
    """Everything that turns text into tokens and back."""

    tokenizer: Tokenizer
    chat: ChatRenderer | None = None
    """None: the model has no chat template, so chat requests are refused."""
