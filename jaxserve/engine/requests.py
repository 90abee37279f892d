"""What goes into the engine and what comes out of it: plain values, for every room above the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, TypeAlias

from jaxserve.engine.token_constraint import TokenConstraint
from jaxserve.images.types import PlacedImage
from jaxserve.sampling.params import SamplingParams

FinishReason = Literal["stop", "length", "abort", "error"]
DraftOrigin = Literal["constraint", "prediction", "own text"]
ConstraintFactory: TypeAlias = Callable[[], TokenConstraint]


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
    images: tuple[PlacedImage, ...] = ()
    """Those of the prompt, by position; the prompt has a placeholder for each of their tokens."""
    constraint: ConstraintFactory | None = None
    """Makes the constraint each choice must follow (grammar, reasoning budget); None = any token goes."""
    prediction: tuple[int, ...] = ()
    """Tokens that the output may resemble: guesses that make it come sooner, never other."""
    want_activations: bool = False
    """Return the last layer's activation of each generated position."""
    want_routing: bool = False
    """Return the routed experts of each generated position, and of each scored one of the prompt."""
    priority: bool = False
    """Whether it comes in before requests without it, and keeps its pages longer; it does not displace who runs."""
    client: str = ""
    """Whose it is: waiting clients come in alternately."""
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
class DraftCounts:
    """What became of a choice's drafts; their sum says what became of several choices'."""

    by_position: tuple[tuple[int, int], ...] = ()
    """(accepted, drafted) of the first draft of a row, the second, and so on."""
    predicted: tuple[int, int] = (0, 0)
    """The same of all drafts that came from the request's prediction."""

    @property
    def drafted(self) -> int:
        """All drafts."""
        return sum(drafted for _, drafted in self.by_position)

    def __add__(self, other: DraftCounts) -> DraftCounts:
        pairs = zip_longest(self.by_position, other.by_position, fillvalue=(0, 0))
        return DraftCounts(
            tuple((a + c, b + d) for (a, b), (c, d) in pairs),
            (self.predicted[0] + other.predicted[0], self.predicted[1] + other.predicted[1]),
        )


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
    drafts: DraftCounts | None = None
    """With `finish_reason`: what became of the choice's drafts; None = it had none."""
    routing: tuple[bytes, ...] = ()
    """Little-endian uint8 (int16 where a model has more than 256 experts) [moe layers, experts per token], one for
    each of `token_ids`, when asked for: the experts of the position that predicted it."""
    prompt_routing: tuple[bytes | None, ...] = ()
    """The same for each of `prompt_logprobs`."""


Sink = Callable[[Delta], None]
"""Receives a request's deltas; called on the engine thread, must return at once and must not raise."""
