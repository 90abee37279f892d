"""The completions of one call of `generate`, while they grow."""

from __future__ import annotations

from collections.abc import Sequence

from jaxserve.engine.requests import Delta, Request
from jaxserve.llm.completion import Completion
from jaxserve.llm.running import Running
from jaxserve.text.tokenizers.tokenizer import Tokenizer


class Call:
    """The completions of one call of `generate`, while they grow."""

    def __init__(self, running: Running, requests: Sequence[Request], tokenizer: Tokenizer) -> None:
        self.running = running
        self._of: dict[tuple[str, int], Completion] = {
            (request.id, choice): Completion(prompt=index, choice=choice, tokenizer=tokenizer)
            for index, request in enumerate(requests)
            for choice in range(request.n)
        }

    def __len__(self) -> int:
        return len(self._of)

    @property
    def completions(self) -> list[Completion]:
        """In the order of the prompts."""
        return list(self._of.values())

    def take(self, delta: Delta) -> None:
        """Adds what a step brought."""
        self._of[delta.request_id, delta.choice].add(delta)
