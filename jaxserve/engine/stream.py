"""One request's way out: committed tokens become text, stop texts are found, deltas go to the sink."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from jaxserve.engine.plan import Advance, SampledToken
from jaxserve.engine.requests import Delta, DraftCounts, FinishReason, Request, Sink, Timing, TokenLogprob
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer
from jaxserve.text.reading.hidden_stops import TokenStops
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclass
class _Choice:
    """Text state of one choice."""

    detokenizer: IncrementalDetokenizer
    stops: TokenStops
    open: bool = True
    drafts: DraftCounts | None = None


@dataclass
class RequestStream:
    """Turns the committed tokens of one request into `Delta`s for its sink. Lives on the engine thread."""

    request: Request
    sink: Sink
    tokenizer: Tokenizer
    arrived: float
    admitted: float | None = None
    first_token: float | None = None
    cached_tokens: int = 0
    prompt_logprobs: dict[int, TokenLogprob] = field(default_factory=dict)
    """Scores by prompt position, collected while the prompt is computed."""
    prompt_routing: dict[int, bytes] = field(default_factory=dict)
    """Their routed experts, where these are wanted."""
    _choices: list[_Choice] = field(default_factory=list)
    _prompt_sent: bool = False

    def __post_init__(self) -> None:
        self._choices = [
            _Choice(
                IncrementalDetokenizer(
                    self.tokenizer,
                    skip_special_tokens=self.request.skip_special_tokens,
                    prefix_ids=self.request.prompt,
                ),
                TokenStops(self.request.stop, self.tokenizer, hides=self.request.skip_special_tokens),
            )
            for _ in range(self.request.n)
        ]

    @property
    def open(self) -> bool:
        """Whether some choice has not ended."""
        return any(choice.open for choice in self._choices)

    def push(self, advance: Advance, *, running: int) -> bool:
        """Sends what one committed step added to one choice.

        Args:
            advance: the choice, already advanced by the scheduler (its sequence's `finish_reason` tells whether it
                ended), and its new tokens.
            running: sequences running in the engine now.

        Returns:
            Whether a stop text ended the choice: the caller then finishes the sequence.
        """
        sequence = advance.sequence
        choice = self._choices[sequence.choice]
        if not choice.open:
            return False
        now = time.monotonic()
        if self.first_token is None:
            self.first_token = now
        if advance.drafted:
            choice.drafts = (choice.drafts or DraftCounts()) + _counted(advance)
        shown = self._take_prompt(sequence.choice)
        tokens, text, stop_text = self._read(choice, advance.tokens, sequence.finish_reason)
        reason = sequence.finish_reason if stop_text is None else "stop"
        choice.open = reason is None
        self._send(
            Delta(
                request_id=self.request.id,
                choice=sequence.choice,
                token_ids=tuple(token.token for token in tokens),
                text=text,
                logprobs=self._logprobs(tokens),
                prompt_logprobs=None if shown is None else tuple(map(self.prompt_logprobs.get, shown)),
                prompt_routing=tuple(map(self.prompt_routing.get, shown or ())) if self.request.want_routing else (),
                finish_reason=reason,
                stop_text=stop_text,
                cached_tokens=self.cached_tokens,
                timing=self._timing(now if not self.open else None),
                concurrent_requests=running,
                drafts=choice.drafts if reason is not None else None,
                activations=tuple(token.activation for token in tokens if token.activation is not None),
                routing=tuple(token.routing for token in tokens if token.routing is not None),
            )
        )
        return stop_text is not None

    def fail(self, error: Exception, choice: int | None = None) -> None:
        """Ends one choice, or all that are open, with an error."""
        self._end("error", error, choice)

    def abort(self) -> None:
        """Ends every open choice because the caller lost interest."""
        self._end("abort", None, None)

    def _end(self, reason: FinishReason, error: Exception | None, only: int | None) -> None:
        for index, choice in enumerate(self._choices):
            if choice.open and only in (None, index):
                choice.open = False
                self._send(
                    Delta(
                        request_id=self.request.id,
                        choice=index,
                        finish_reason=reason,
                        error=error,
                        drafts=choice.drafts,
                        cached_tokens=self.cached_tokens,
                        timing=self._timing(time.monotonic()),
                    )
                )

    def _read(
        self, choice: _Choice, tokens: tuple[SampledToken, ...], reason: FinishReason | None
    ) -> tuple[tuple[SampledToken, ...], str, str | None]:
        """The tokens up to the one that completes a stop text, their text that may be shown, and that stop text."""
        shown = ""
        for count, token in enumerate(tokens, 1):
            ends = reason if count == len(tokens) else None
            if ends == "stop" and token.token in self.request.stop_token_ids:
                break
            text, matched = choice.stops.push(token.token, choice.detokenizer.push(token.token))
            shown += text
            if matched is not None:
                return tokens[:count], shown, matched
        if reason is not None:
            text, matched = choice.stops.end(choice.detokenizer.flush())
            shown += text
            return tokens, shown, matched
        return tokens, shown, None

    def _logprobs(self, tokens: tuple[SampledToken, ...]) -> tuple[TokenLogprob, ...]:
        if self.request.logprobs is None:
            return ()
        return tuple(token.logprob for token in tokens if token.logprob is not None)

    def _take_prompt(self, choice: int) -> range | None:
        """The prompt positions whose scores go out with this delta: all that are wanted, once, with choice 0."""
        first = self.request.prompt_logprobs_from
        if first is None or choice != 0 or self._prompt_sent:
            return None
        self._prompt_sent = True
        return range(first, len(self.request.prompt))

    def _timing(self, finished: float | None) -> Timing:
        return Timing(arrived=self.arrived, admitted=self.admitted, first_token=self.first_token, finished=finished)

    def _send(self, delta: Delta) -> None:
        if not send(self.sink, delta):
            self.sink = _drop


def _counted(advance: Advance) -> DraftCounts:
    by_position = tuple((int(place < advance.accepted), 1) for place in range(advance.drafted))
    predicted = advance.origin == "prediction"
    return DraftCounts(by_position, (advance.accepted * predicted, advance.drafted * predicted))


def send(sink: Sink, delta: Delta) -> bool:
    """Hands a delta on; a broken sink must not reach the other requests. Returns whether the sink took it."""
    try:
        sink(delta)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("the sink of request %s raised; its output is dropped", delta.request_id)
        return False
    return True


def _drop(delta: Delta) -> None:
    """The sink of a request whose own sink is broken."""
