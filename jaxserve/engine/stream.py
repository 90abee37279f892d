"""One request's way out: committed tokens become text, stop texts are found, deltas go to the sink."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from jaxserve.engine.types import (
    Delta,
    FinishReason,
    Request,
    SampledToken,
    Sequence,
    Sink,
    Timing,
    TokenLogprob,
)
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer
from jaxserve.text.reading.stop import StopMatcher
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclass
class _Choice:
    """Text state of one choice."""

    detokenizer: IncrementalDetokenizer
    stops: StopMatcher
    open: bool = True


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
    _choices: list[_Choice] = field(default_factory=list)
    _prompt_logprobs_sent: bool = False

    def __post_init__(self) -> None:
        self._choices = [
            _Choice(
                IncrementalDetokenizer(
                    self.tokenizer,
                    skip_special_tokens=self.request.skip_special_tokens,
                    prefix_ids=self.request.prompt,
                ),
                StopMatcher(self.request.stop),
            )
            for _ in range(self.request.n)
        ]

    @property
    def open(self) -> bool:
        """Whether some choice has not ended."""
        return any(choice.open for choice in self._choices)

    def push(
        self,
        sequence: Sequence,
        sampled: SampledToken | None,
        *,
        running: int,
        activation: bytes | None = None,
        routing: bytes | None = None,
    ) -> bool:
        """Sends what one committed step added to one choice.

        Args:
            sequence: the choice, already advanced by the scheduler (its `finish_reason` tells whether it ended).
            sampled: the token; None when a request without output tokens ended.
            running: sequences running in the engine now.
            activation: little-endian float32 activation of the token's position, when asked for.
            routing: little-endian int16 routed experts of the token's position, when asked for.

        Returns:
            Whether a stop text ended the choice: the caller then finishes the sequence.
        """
        choice = self._choices[sequence.choice]
        if not choice.open:
            return False
        now = time.monotonic()
        if self.first_token is None:
            self.first_token = now
        reason = sequence.finish_reason
        text, stop_text = self._text(choice, sampled, reason)
        if stop_text is not None:
            reason = "stop"
        choice.open = reason is None
        tokens = () if sampled is None else (sampled.token,)
        wants_logprobs = self.request.logprobs is not None and sampled is not None and sampled.logprob is not None
        self._send(
            Delta(
                request_id=self.request.id,
                choice=sequence.choice,
                token_ids=tokens,
                text=text,
                logprobs=(sampled.logprob,) if wants_logprobs and sampled and sampled.logprob else (),
                prompt_logprobs=self._take_prompt_logprobs(sequence.choice),
                finish_reason=reason,
                stop_text=stop_text,
                cached_tokens=self.cached_tokens,
                timing=self._timing(now if not self.open else None),
                concurrent_requests=running,
                activations=() if activation is None else (activation,),
                routing=() if routing is None else (routing,),
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
                        cached_tokens=self.cached_tokens,
                        timing=self._timing(time.monotonic()),
                    )
                )

    def _text(
        self, choice: _Choice, sampled: SampledToken | None, reason: FinishReason | None
    ) -> tuple[str, str | None]:
        """New text that may be shown, and the stop text that matched."""
        if sampled is None or (reason == "stop" and sampled.token in self.request.stop_token_ids):
            new = ""
        else:
            new = choice.detokenizer.push(sampled.token)
        if reason is not None:
            new += choice.detokenizer.flush()
        text, matched = choice.stops.push(new)
        if matched is None and reason is not None:
            text += choice.stops.flush()
        return text, matched

    def _take_prompt_logprobs(self, choice: int) -> tuple[TokenLogprob | None, ...] | None:
        first = self.request.prompt_logprobs_from
        if first is None or choice != 0 or self._prompt_logprobs_sent:
            return None
        self._prompt_logprobs_sent = True
        return tuple(self.prompt_logprobs.get(position) for position in range(first, len(self.request.prompt)))

    def _timing(self, finished: float | None) -> Timing:
        return Timing(arrived=self.arrived, admitted=self.admitted, first_token=self.first_token, finished=finished)

    def _send(self, delta: Delta) -> None:
        if not send(self.sink, delta):
            self.sink = _drop


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
