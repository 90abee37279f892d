"""Deltas to chunks. One code path: a response that isn't streamed is the fold of these same chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from jaxserve.api import logprobs
from jaxserve.api.echo import TokenPlaces
from jaxserve.api.logprobs import Entry
from jaxserve.api.lower import Job, LoweredPrompt
from jaxserve.api.message import MessageReader, Part
from jaxserve.api.ports import Tokenizer
from jaxserve.api.schema.responses import (
    AnyLogProbs,
    ChatCompletionStreamResponse,
    ChatStreamChoice,
    CompletionChoice,
    CompletionStreamResponse,
    DeltaToolCall,
    FinishReason,
    RawOutput,
    ToolCallFunction,
)
from jaxserve.api.usage import Ledger
from jaxserve.api.wishes import View
from jaxserve.engine.requests import Delta, TokenLogprob
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer

Chunk = ChatCompletionStreamResponse | CompletionStreamResponse


@dataclass(frozen=True)
class Piece:
    """What one chunk says about one choice, in neither endpoint's words."""

    index: int
    text: str = ""
    opening: bool = False
    reasoning: str = ""
    calls: Sequence[DeltaToolCall] = ()
    function_call: ToolCallFunction | None = None
    """The same for who asked with `functions`."""
    finish_reason: FinishReason | None = None
    logprobs: AnyLogProbs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    raw_output: RawOutput | None = None


@dataclass(frozen=True)
class _PromptTokens:
    """What the engine told of a prompt's echoed tokens; nothing where nothing was asked for."""

    scores: Sequence[TokenLogprob | None] = ()
    routing: Sequence[bytes | None] = ()

    def score(self, index: int) -> TokenLogprob | None:
        """Of the echo's token `index`."""
        return self.scores[index] if self.scores else None

    def experts(self, index: int) -> bytes | None:
        """Of the echo's token `index`."""
        return self.routing[index] if self.routing else None


@dataclass
class _Choice:
    """One choice on its way out. Tokens leave together with the text they wrote, never before it."""

    index: int
    prompt: LoweredPrompt
    view: View
    tokenizer: Tokenizer
    returned: int = 0
    """Characters of output returned so far (before parsing, if it is parsed), the echo not counted."""
    held: list[Entry] = field(default_factory=list)
    """Tokens whose text hasn't been returned; offsets count from the start of the output."""
    echoed: list[Entry] = field(default_factory=list)
    """Tokens of the prompt that are returned in front of the output."""
    tokens: list[Entry] = field(default_factory=list)
    """All tokens, kept for `raw_output` only."""
    places: TokenPlaces | None = None
    reader: MessageReader | None = None

    def __post_init__(self) -> None:
        if self.prompt.parsing is not None:
            self.reader = MessageReader(self.prompt.parsing)
        if self.shows_tokens:
            request = self.prompt.request
            self.places = TokenPlaces(
                self.tokenizer, skip_special_tokens=request.skip_special_tokens, prefix_ids=request.prompt
            )

    @property
    def shows_tokens(self) -> bool:
        """Whether the response shows more than text."""
        return self.view.logprobs is not None or self.view.token_ids or self.view.raw_output

    @property
    def legacy(self) -> bool:
        """Whether calls are told as `function_call`."""
        return self.prompt.parsing is not None and self.prompt.parsing.legacy

    @property
    def _echo_text(self) -> str:
        return self.prompt.echo.text if self.prompt.echo is not None else ""

    def opening(self, told: _PromptTokens) -> Piece:
        """The first piece: the echo, the prompt's tokens, no output yet."""
        echo, ids = self.prompt.echo, self.prompt.request.prompt
        if echo is not None:
            rows = zip(ids[echo.first :], echo.offsets, echo.shown, strict=True)
            self.echoed = [
                Entry(token, offset, told.score(index), routing=told.experts(index), shown=shown)
                for index, (token, offset, shown) in enumerate(rows)
            ]
        return Piece(
            self.index,
            text=self._echo_text,
            opening=True,
            logprobs=logprobs.render(self.echoed, self.view, self.tokenizer),
            prompt_token_ids=list(ids) if self.view.token_ids else None,
        )

    def lift(self, delta: Delta) -> Iterator[Piece]:
        """What a delta adds that can be shown already.

        The end is a piece of its own: loops that stop at a finish reason would lose the text that came with it.
        """
        self.returned += len(delta.text)
        if self.shows_tokens:
            self._hold(delta)
        shown = self._release(everything=delta.finish_reason is not None)
        part, reason = Part(content=delta.text), delta.finish_reason
        if self.reader is not None:
            cut = reason != "stop" or delta.stop_text is not None
            part = self.reader.read(delta.text, ended=reason is not None, cut=cut)
        if shown or not part.empty:
            yield Piece(
                self.index,
                text=part.content,
                reasoning=part.reasoning,
                calls=() if self.legacy else part.calls,
                function_call=_first_function(part.calls) if self.legacy else None,
                logprobs=logprobs.render(shown, self.view, self.tokenizer),
                token_ids=[entry.token for entry in shown] if self.view.token_ids else None,
            )
        if reason is not None:
            yield Piece(
                self.index,
                finish_reason=cast(FinishReason, self.reader.finish_reason(reason) if self.reader else reason),
                raw_output=self._raw_output(delta) if self.view.raw_output else None,
            )

    def _hold(self, delta: Delta) -> None:
        assert self.places is not None
        for position, token in enumerate(delta.token_ids):
            entry = Entry(
                token,
                self.places.push(token),
                delta.logprobs[position] if delta.logprobs else None,
                delta.activations[position] if delta.activations else None,
                delta.routing[position] if delta.routing else None,
            )
            self.held.append(entry)
            if self.view.raw_output:
                self.tokens.append(entry)

    def _release(self, *, everything: bool) -> list[Entry]:
        """Tokens whose text has been returned, offsets now counted in the returned text."""
        count = len(self.held) if everything else sum(entry.offset < self.returned for entry in self.held)
        shown = [self._returned(entry) for entry in self.held[:count]]
        del self.held[:count]
        return shown

    def _returned(self, entry: Entry) -> Entry:
        offset = len(self._echo_text) + min(entry.offset, self.returned)
        return Entry(entry.token, offset, entry.score, entry.activation, entry.routing)

    def _raw_output(self, delta: Delta) -> RawOutput:
        ids, echoed = [entry.token for entry in self.tokens], [entry.token for entry in self.echoed]
        ended_by_token = delta.finish_reason == "stop" and ids and ids[-1] in self.prompt.request.stop_token_ids
        raw: RawOutput = {
            "prompt_fragments": list(self.prompt.tokens.fragments),
            "prompt_token_ids": list(self.prompt.request.prompt),
            "completion": self._echo_text + self._raw_text(ids[:-1] if ended_by_token else ids),
            "completion_token_ids": echoed + ids,
            "grammar": self.prompt.grammar,
        }
        if self.prompt.tokens.image_urls:
            raw["images"] = list(self.prompt.tokens.image_urls)
        if self.view.logprobs is not None:
            entries = self.echoed + [self._returned(entry) for entry in self.tokens]
            raw["completion_logprobs"] = logprobs.new(entries, self.view.top_logprobs, self.tokenizer)
        return raw

    def _raw_text(self, ids: Sequence[int]) -> str:
        prompt = self.prompt.request.prompt
        detokenizer = IncrementalDetokenizer(self.tokenizer, skip_special_tokens=False, prefix_ids=prompt)
        return "".join([detokenizer.push(token) for token in ids]) + detokenizer.flush()


class Lifter:
    """Turns the deltas of one job into chunks."""

    def __init__(self, job: Job, ledger: Ledger, tokenizer: Tokenizer, *, model: str, created: int) -> None:
        self._job = job
        self._ledger = ledger
        self._tokenizer = tokenizer
        self._head: dict[str, Any] = {
            "id": job.id,
            "object": "chat.completion.chunk" if job.endpoint == "chat" else "text_completion",
            "created": created,
            "model": model,
        }
        self._shape: Callable[[Piece], Any] = _chat_choice if job.endpoint == "chat" else _completion_choice
        self._first_choice: dict[str, int] = {}
        self._prompts = {prompt.request.id: prompt for prompt in job.prompts}
        first = 0
        for prompt in job.prompts:
            self._first_choice[prompt.request.id] = first
            first += prompt.request.n
        self._open = first
        self._opened = False
        self._choices: dict[int, _Choice] = {}
        self._prompt_tokens: dict[str, _PromptTokens] = {}
        self._waiting: dict[str, list[Delta]] = {}

    def lift(self, delta: Delta) -> list[Chunk]:
        """The chunks that a delta makes, none to several."""
        self._ledger.add(delta)
        request = self._prompts[delta.request_id].request
        if delta.prompt_logprobs is not None:
            self._prompt_tokens[request.id] = _PromptTokens(delta.prompt_logprobs, delta.prompt_routing)
        if request.prompt_logprobs_from is not None and request.id not in self._prompt_tokens:
            # Choice 0 brings the prompt's scores; choices that were faster wait for them.
            self._waiting.setdefault(request.id, []).append(delta)
            return []
        ready = [delta, *self._waiting.pop(request.id, [])]
        return [chunk for each in ready for chunk in self._lift(each)]

    def _lift(self, delta: Delta) -> list[Chunk]:
        index = self._first_choice[delta.request_id] + delta.choice
        pieces: list[Piece] = []
        choice = self._choices.get(index)
        if choice is None:
            choice = _Choice(index, self._prompts[delta.request_id], self._job.view, self._tokenizer)
            self._choices[index] = choice
            if self._job.endpoint == "chat" or choice.prompt.echo is not None or self._job.view.token_ids:
                pieces.append(choice.opening(self._prompt_tokens.get(delta.request_id, _PromptTokens())))
        pieces += choice.lift(delta)
        self._open -= delta.finish_reason is not None
        return [self._chunk(piece) for piece in pieces]

    def _chunk(self, piece: Piece) -> Chunk:
        chunk: dict[str, Any] = {**self._head, "choices": [self._shape(piece)]}
        if self._job.endpoint == "chat" and piece.prompt_token_ids is not None and not self._opened:
            chunk["prompt_token_ids"] = piece.prompt_token_ids
        self._opened = True
        return cast(Chunk, chunk)

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return self._open == 0

    def seal(self, chunk: Chunk, perf_metrics: dict[str, Any]) -> list[Chunk]:
        """Completes the chunk that ends the last choice with metrics and usage.

        A client that asked for a closing chunk gets the usage there and only there, as OpenAI sends it: clients add up
        what they find (langchain counted twice). One that asked for none gets none.
        """
        if self._job.view.perf_metrics:
            chunk["perf_metrics"] = perf_metrics
        place = self._job.view.stream_usage
        if place == "closing chunk":
            return [chunk, cast(Chunk, {**self._head, "choices": [], "usage": self._ledger.usage()})]
        if place == "last chunk":
            chunk["usage"] = self._ledger.usage()
        return [chunk]


def _first_function(calls: Sequence[DeltaToolCall]) -> ToolCallFunction | None:
    """What there is of the first call: `functions` knows no second one."""
    return next((cast(ToolCallFunction, call["function"]) for call in calls if call.get("index") == 0), None)


def _common(piece: Piece) -> dict[str, Any]:
    optional = {
        "logprobs": piece.logprobs,
        "token_ids": piece.token_ids,
        "prompt_token_ids": piece.prompt_token_ids,
        "raw_output": piece.raw_output,
    }
    return {"finish_reason": piece.finish_reason} | {key: value for key, value in optional.items() if value is not None}


def _chat_choice(piece: Piece) -> ChatStreamChoice:
    delta: dict[str, Any] = {"role": "assistant"} if piece.opening else {}
    if piece.text or piece.opening:
        delta["content"] = piece.text
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.calls:
        delta["tool_calls"] = list(piece.calls)
    if piece.function_call is not None:
        delta["function_call"] = piece.function_call
    return cast(ChatStreamChoice, {"index": piece.index, "delta": delta, **_common(piece)})


def _completion_choice(piece: Piece) -> CompletionChoice:
    return cast(CompletionChoice, {"index": piece.index, "text": piece.text, **_common(piece)})
