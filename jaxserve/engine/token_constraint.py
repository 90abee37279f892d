"""The port to what restricts a sequence's tokens: grammars and reasoning budgets, made by the engine's callers."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

MaskRow: TypeAlias = Any
"""A NumPy int32 array [ceil(V / 32)]: bit i % 32 of word i // 32 allows token i. Untyped, since the scheduler imports
this file and no arrays."""


class TokenConstraint(Protocol):
    """State of one sequence's constraint."""

    @property
    def constrains(self) -> bool:
        """Whether the next token depends on the one before it, as far as the tokens taken so far tell."""

    @property
    def stands(self) -> bool:
        """Whether the same tokens are forbidden at every position as long as `constrains` is false."""

    def prepare(self, row: MaskRow) -> Any:
        """Writes the allowed next tokens into a row that comes all allowed; or returns llguidance's matcher to ask."""

    def complete(self, row: MaskRow) -> None:
        """Corrects the row after that matcher has written it."""

    def advance(self, token: int) -> None:
        """Takes the token the sequence continued with."""

    def fork(self) -> TokenConstraint:
        """A copy, to follow drafts."""

    @property
    def forced(self) -> tuple[int, ...]:
        """Tokens that are likely next because hardly another is allowed; () = there is a choice."""
