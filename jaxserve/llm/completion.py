"""A finished completion, and how a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxserve.engine.requests import Delta, FinishReason, TokenLogprob
from jaxserve.llm.html import tokens_html
from jaxserve.text.tokenizers.tokenizer import Tokenizer


@dataclass
class Completion:
    """One finished completion."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list, repr=False)
    """One for each token, where `logprobs` was asked for."""
    finish_reason: FinishReason | None = None
    prompt: int = 0
    """Index of its prompt among those of the call."""
    choice: int = 0
    """Which of the `n` completions of its prompt it is."""
    tokenizer: Tokenizer | None = field(default=None, repr=False, compare=False)

    def add(self, delta: Delta) -> None:
        """Takes over what a step added."""
        self.text += delta.text
        self.token_ids.extend(delta.token_ids)
        self.logprobs.extend(delta.logprobs)
        self.finish_reason = delta.finish_reason or self.finish_reason

    def _repr_html_(self) -> str:
        """The text; with `logprobs`, each token coloured by its probability, its rivals when pointed at."""
        return tokens_html(self.text, self.logprobs, self.tokenizer)
