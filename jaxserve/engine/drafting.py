"""What the scheduler needs to know of drafts: who proposes them, and how many a step has room for. No arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxserve.config import EngineConfig
from jaxserve.engine.requests import DraftOrigin
from jaxserve.engine.sequence import Sequence


@dataclass(frozen=True)
class Proposal:
    """A guess at the output tokens that a planned row samples, from its first sample on."""

    tokens: tuple[int, ...]
    """At least one."""
    wanted: int
    """How many of them are worth a larger step; more may fill what room there is."""
    origin: DraftOrigin


Propose = Callable[[Sequence, int], Proposal | None]
"""(sequence, most) -> at most so many tokens; None = no idea."""


def NO_DRAFTS(sequence: Sequence, most: int) -> None:  # noqa: N802 - a constant
    """Proposes nothing."""


@dataclass(frozen=True)
class Room:
    """How many drafts fit into steps."""

    buckets: tuple[tuple[int, int], ...]
    """(T, N) of each bucket, ascending."""

    @classmethod
    def of(cls, config: EngineConfig) -> Room:
        """The room in the buckets of a configuration."""
        return cls(tuple((size, config.sample_bucket(size)) for size in config.token_buckets))

    def beside(self, tokens: int, samples: int, wanted: int) -> int:
        """Drafts that fit beside so many tokens and samples, in the bucket that these and `wanted` drafts need."""
        most = min(self.buckets[-1][0] - tokens, self.buckets[-1][1] - samples)
        wanted = max(0, min(wanted, most))
        return max(
            0,
            next(
                (
                    min(size - tokens, positions - samples)
                    for size, positions in self.buckets
                    if size >= tokens + wanted and positions >= samples + wanted
                ),
                0,
            ),
        )
