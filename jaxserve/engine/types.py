"""The types that flow through the engine. Each is filled in by one room; none holds a jax array.

`Request` comes from `api.lower` (or the notebook face), becomes `n` `Sequence`s in the scheduler, is planned into a
`Plan` per step, and comes back as `Delta`s.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from jaxserve.sampling.params import SamplingParams

if TYPE_CHECKING:
    from jaxserve.engine.constraints import TokenConstraint
    from jaxserve.engine.pages import Block

FinishReason = Literal["stop", "length", "abort", "error"]
ConstraintFactory: TypeAlias = "Callable[[], TokenConstraint]"


@dataclass(frozen=True)
class Request:
    """One prompt and what is wanted of it. Validated by the caller; the engine trusts it."""

    id: str
    prompt: tuple[int, ...]
    """Prompt token ids, never empty, shorter than the engine's context."""
    sampling: SamplingParams
    max_tokens: int
    """Tokens to generate at most, at least 0 (0 only scores the prompt); already lowered to fit the context."""
    n: int = 1
    """Choices for this prompt. Choice i folds its index into the seed."""
    stop: tuple[str, ...] = ()
    """Stop texts; matched across token borders, never part of the output."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the sequence (the model's EOS tokens, unless the request ignores them). Not part of the text."""
    logprobs: int | None = None
    """None = off; otherwise how many alternatives (0..5) to return beside each chosen token."""
    prompt_logprobs_from: int | None = None
    """First prompt position whose log-probability is wanted (None = none). Not read from the cache."""
    cache_key: str = ""
    """Prefix-cache isolation key: pages are shared between requests with equal keys only."""
    cache_max_len: int | None = None
    """At most this many prompt tokens are kept in the prefix cache (None = no limit)."""
    skip_special_tokens: bool = True
    """Whether special tokens are left out of the text."""
    constraint: ConstraintFactory | None = None
    """Makes the constraint each choice must follow (grammar, reasoning budget); None = any token goes."""
    want_activations: bool = False
    """Return the last layer's activation of each generated position."""
    want_routing: bool = False
    """Return the routed experts of each generated position."""
    call: str = ""
    """Requests that one call of a client made share it, and wait as one; "" = the request's own id."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "call", self.call or self.id)


@dataclass(frozen=True)
class TokenLogprob:
    """Log-probabilities of one position (natural log)."""

    token: int
    logprob: float
    """Under the raw model."""
    sampling_logprob: float | None
    """Under the distribution actually drawn from; None for prompt tokens."""
    top: tuple[tuple[int, float], ...] = ()
    """(token id, raw log-probability), most likely first."""


@dataclass(frozen=True)
class Timing:
    """When things happened to a request, in seconds of `time.monotonic()`; None = not yet."""

    arrived: float
    admitted: float | None = None
    """First planned into a step."""
    first_token: float | None = None
    finished: float | None = None


@dataclass(frozen=True)
class Delta:
    """What one committed step adds to one choice of a request. The stream of a choice ends with `finish_reason`."""

    request_id: str
    choice: int
    token_ids: tuple[int, ...] = ()
    """New tokens, in order (the stop token is included, its text is not)."""
    text: str = ""
    """New text: complete characters only, nothing that may still become part of a stop text."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One entry for each of `token_ids` when the request asked for them."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    """Sent once, with the first delta of choice 0: entries for prompt[prompt_logprobs_from:], None for position 0."""
    finish_reason: FinishReason | None = None
    stop_text: str | None = None
    """The stop text that matched, if one did."""
    error: Exception | None = None
    """Set with finish_reason 'error'."""
    cached_tokens: int = 0
    """Prompt tokens served from the prefix cache (valid from the first delta on)."""
    timing: Timing | None = None
    concurrent_requests: int = 0
    """Requests running in the engine when this delta was made."""
    activations: tuple[bytes, ...] = ()
    """Little-endian float32 rows, one for each of `token_ids`, when asked for."""
    routing: tuple[bytes, ...] = ()
    """Little-endian int16 [moe layers, experts per token], one for each of `token_ids`, when asked for."""


Sink = Callable[[Delta], None]
"""Receives a request's deltas; called on the engine thread, must return at once and must not raise."""


class SequenceState(enum.Enum):
    """Where a sequence is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True)
class PageRun:
    """Pages of consecutive blocks of one sequence in one page group; block b is positions b * page_size and on."""

    first: int = 0
    """Block of the first page; the blocks before it have been given up, or were never held."""
    pages: array[int] = field(default_factory=lambda: array("i"))

    @property
    def end(self) -> int:
        """The block after the last."""
        return self.first + len(self.pages)

    def part(self, first: int, end: int) -> PageRun:
        """A copy of the pages of blocks [first, end), all of them held."""
        return PageRun(first, self.pages[first - self.first : end - self.first])


@dataclass(eq=False)
class Sequence:
    """One choice of one request inside the scheduler. Host bookkeeping only."""

    request: Request
    choice: int
    arrival: int
    """Order of arrival; ties nothing else."""
    output: list[int] = field(default_factory=list)
    """Committed output tokens."""
    state: SequenceState = SequenceState.WAITING
    slot: int = -1
    """Row of the device's slot state while running, else -1."""
    pages: list[PageRun] = field(default_factory=list)
    """What it holds in each page group while running; empty otherwise."""
    room: int = 0
    """Positions before which every page group has the pages that are still to be written."""
    computed: int = 0
    """Positions whose KV has been launched (or found in the prefix cache)."""
    sampled: int = 0
    """Output tokens launched so far: `len(output)` plus at most one in flight."""
    cached: int = 0
    """Prompt tokens found in the prefix cache at first admission."""
    registered: int = 0
    """Leading blocks that the prefix cache knows."""
    block: Block | None = None
    """The last of these."""
    in_flight: int = 0
    """Rows of this sequence that have been planned and not yet committed."""
    preemptions: int = 0
    finish_reason: FinishReason | None = None

    @property
    def tokens(self) -> list[int]:
        """Prompt and committed output."""
        return [*self.request.prompt, *self.output]

    @property
    def length(self) -> int:
        """Positions that exist once everything launched has been committed."""
        return len(self.request.prompt) + self.sampled


@dataclass(frozen=True)
class PlannedRow:
    """One sequence's share of a step: positions [start, start + count) are computed."""

    sequence: Sequence
    start: int
    tokens: tuple[int, ...]
    """Token ids of those positions; -1 = the token this slot sampled last, still on the device."""
    pages: tuple[tuple[int, array[int]], ...]
    """In each page group, the first block that this step reads or writes, and the pages from there on."""
    samples: bool
    """Whether the last of these positions yields an output token."""
    fresh: bool
    """First step of this sequence in its slot (admission or after preemption): slot state is reset."""
    position: int
    """Index of the output token sampled here (0 = first), the second argument of the draw's `fold_in`."""

    @property
    def count(self) -> int:
        """Tokens computed for this row."""
        return len(self.tokens)


@dataclass(frozen=True)
class Plan:
    """One step: rows ordered by slot, decode rows and prefill chunks mixed."""

    rows: tuple[PlannedRow, ...]

    @property
    def num_tokens(self) -> int:
        """Packed tokens of the step."""
        return sum(row.count for row in self.rows)


@dataclass(frozen=True)
class SampledToken:
    """What the step returned for one row that sampled."""

    token: int
    logprob: TokenLogprob | None = None
    failed: bool = False
    """The row had no token left to draw from."""
