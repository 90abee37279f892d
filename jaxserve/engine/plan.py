"""What a step is to compute, in terms of sequences, and what it gave."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from jaxserve.engine.image_pool import Encoding
from jaxserve.engine.requests import DraftOrigin, TokenLogprob
from jaxserve.engine.sequence import Sequence


@dataclass(frozen=True, eq=False)
class PlannedImage:
    """An image of a row, in the pool of embeddings."""

    start: int
    """Position of its first token."""
    rows: array[int]
    """Row of the pool of each of its tokens."""


@dataclass(frozen=True)
class PlannedRow:
    """One sequence's share of a step: positions [start, start + count) are computed."""

    sequence: Sequence
    start: int
    tokens: tuple[int, ...]
    """Token ids of those positions; -1 = the token this slot sampled last, still on the device."""
    pages: tuple[tuple[int, array[int]], ...]
    """In each page group, the first block that this step reads or writes, and the pages from there on."""
    samples: int
    """How many of these positions, the last ones, yield an output token each."""
    fresh: bool
    """First step of this sequence in its slot (admission or after preemption): slot state is reset."""
    position: int
    """Index of the first output token sampled here (0 = the sequence's first): the draw's `fold_in` counts from it."""
    images: tuple[PlannedImage, ...] = ()
    """Those of which these positions hold a part, or all."""

    branch: int = 0
    """The sequence's when it was planned."""
    origin: DraftOrigin | None = None
    """Where its drafts come from; None = it has none."""

    @property
    def count(self) -> int:
        """Tokens computed for this row."""
        return len(self.tokens)

    @property
    def drafts(self) -> tuple[int, ...]:
        """Guesses at output tokens: its last tokens, behind the first one that samples."""
        return self.tokens[len(self.tokens) - self.samples + 1 :] if self.samples > 1 else ()

    @property
    def void(self) -> bool:
        """Whether it counted on drafts that have turned out to be wrong: the device has not drawn it."""
        return self.branch != self.sequence.branch


@dataclass(frozen=True)
class Plan:
    """One step: rows ordered by slot, decode rows and prefill chunks mixed."""

    rows: tuple[PlannedRow, ...]
    encodings: tuple[Encoding, ...] = ()
    """Images to be encoded before it."""

    @property
    def num_tokens(self) -> int:
        """Packed tokens of the step."""
        return sum(row.count for row in self.rows)

    @property
    def num_samples(self) -> int:
        """Positions of the step that yield an output token."""
        return sum(row.samples for row in self.rows)


@dataclass(frozen=True)
class SampledToken:
    """What the step returned for one position that sampled."""

    token: int
    logprob: TokenLogprob | None = None
    failed: bool = False
    """There was no token left to draw from."""
    activation: bytes | None = None
    """The last layer's activation of the position, little-endian float32, when asked for."""
    routing: bytes | None = None
    """Its routed experts, when asked for: see `Delta.routing`."""


@dataclass(frozen=True)
class RowResult:
    """What a step returned for one planned row."""

    sampled: tuple[SampledToken, ...] = ()
    """In order of their positions; none where the row ended inside its prompt."""
    prompt_logprobs: tuple[tuple[int, TokenLogprob], ...] = ()
    """(prompt position, score) of the positions this row computed, when asked for."""
    prompt_routing: tuple[tuple[int, bytes], ...] = ()
    """(prompt position, routed experts) of the same positions, when asked for."""


@dataclass(frozen=True)
class Advance:
    """What a committed step added to one sequence."""

    sequence: Sequence
    tokens: tuple[SampledToken, ...] = ()
    """Appended to its output; none where a prompt that was only scored has ended."""
    failed: bool = False
    """No token was left to draw from after these; the sequence has ended with 'error'."""
    drafted: int = 0
    """Drafts of the row."""
    accepted: int = 0
    """The first ones of them that were right, and became part of the output."""
    origin: DraftOrigin | None = None
    """Where they came from; None = it had none."""
