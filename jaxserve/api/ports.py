"""What the HTTP room needs from the others, as protocols: the engine and the text services satisfy them as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from jaxserve.api.request_images import RequestImages
from jaxserve.engine.requests import ConstraintFactory, Request, Sink
from jaxserve.images.types import ImageFile, ImageInput, ImageMarkup
from jaxserve.text.formats import BoundFormat
from jaxserve.text.grammar.wish import OutputWish
from jaxserve.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["ChatRenderer", "EngineLike", "ImageReader", "OutputRules", "TextServices", "Tokenizer", "WishCompiler"]


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


class OutputRules(Protocol):
    """What the outputs of one prompt must follow."""

    @property
    def make(self) -> ConstraintFactory:
        """Makes the constraint of one choice."""

    @property
    def grammar(self) -> str | None:
        """Text of the grammar, if there is one."""

    @property
    def relaxed(self) -> tuple[tuple[str, str], ...]:
        """(tool, what of its schema is left to the model)."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that must end the output, whatever else the request says."""


class WishCompiler(Protocol):
    """Compiles grammars and budgets (`jaxserve.text.grammar.constraint.ConstraintBuilder`)."""

    def build(self, wish: OutputWish, prompt: str | None = None) -> OutputRules | None:
        """The rules of a request's outputs after a prompt of this text; None when any token goes.

        Raises:
            InvalidRequest: the schema, grammar or tools can't be honoured.
        """

    def known(self) -> WishCompiler:
        """The same for callers who must not wait: `build` raises `NotReady` where a grammar has to be compiled."""


class ImageReader(Protocol):
    """How the model reads images (`jaxserve.images.processor.ImageServices`)."""

    @property
    def markup(self) -> ImageMarkup:
        """How images stand in prompts."""

    def read(self, files: Sequence[ImageFile], most_pixels: int) -> tuple[ImageInput, ...]:
        """Decodes images of at most so many pixels together. Takes milliseconds for each.

        Raises:
            InvalidRequest: one can't be read, or there are more pixels; names the part of the request.
        """


@dataclass(frozen=True)
class TextServices:
    """Everything that turns text into tokens and back."""

    tokenizer: Tokenizer
    format: BoundFormat
    """How the model writes reasoning and tool calls; holds its chat template, if there is one."""
    constraints: WishCompiler | None = None
    """None: the model has no end-of-sequence token, so nothing that needs a grammar can be asked of it."""
    images: ImageReader | None = None
    """None: the model reads text only."""
    seen: RequestImages | None = None
    """The images of the request that is lowered; None = of no particular one."""

    def known(self) -> TextServices:
        """The same, in so far as it takes no waiting."""
        return self if self.constraints is None else replace(self, constraints=self.constraints.known())

    @property
    def chat(self) -> ChatRenderer | None:
        """None: the model has no chat template, so chat requests are refused."""
        return self.format.renderer
