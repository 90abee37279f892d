"""Conversations: fields as over HTTP, answers as objects."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from typing import Any, cast

from jaxserve.api.body import validate
from jaxserve.api.errors import ApiError
from jaxserve.api.generation_config import sampling_defaults
from jaxserve.api.join import fold
from jaxserve.api.lift import Chunk, Lifter
from jaxserve.api.lower import Job, lower_chat
from jaxserve.api.schema.requests import ChatCompletionRequest
from jaxserve.api.settings import Settings
from jaxserve.api.usage import Ledger, Stopwatch
from jaxserve.engine.requests import Delta
from jaxserve.errors import InvalidRequest
from jaxserve.llm.params import SamplingParams, completed
from jaxserve.prepared import Prepared
from jaxserve.sampling.params import KNOBS
from jaxserve.services import chat_format, model_info, text_services
from jaxserve.startup import Started

Messages = str | Sequence[Mapping[str, Any]]
"""A conversation, or what the user says first. PIL images may stand among the parts of a content."""


@dataclass(frozen=True)
class ChatPiece:
    """What a step adds to an answer."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    """Pieces of calls, as streams over HTTP have them."""
    choice: int = 0
    finish_reason: str | None = None

    def __str__(self) -> str:
        return self.content


@dataclass(frozen=True)
class ChatAnswer:
    """An answer, of which the first choice is at hand by name."""

    response: dict[str, Any] = field(repr=False)
    """The whole, as over HTTP."""

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, to go on with: `messages.append(answer.message)`."""
        return cast(dict[str, Any], self.response["choices"][0]["message"])

    @property
    def content(self) -> str:
        """Its text."""
        return self.message["content"] or ""

    @property
    def reasoning(self) -> str:
        """What the model thought before."""
        return str(self.message.get("reasoning_content", ""))

    @property
    def tool_calls(self) -> list[tuple[str, Any]]:
        """(name, arguments) of each call; arguments that are no JSON stay text."""
        calls = (call["function"] for call in self.message.get("tool_calls", ()))
        return [(call["name"], _parsed(call["arguments"])) for call in calls]

    @property
    def json(self) -> Any:
        """The text's JSON value.

        Raises:
            ValueError: it is none: none was asked for, or the answer was cut.
        """
        return json.loads(self.content)

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return str(self.response["choices"][0]["finish_reason"])

    def __repr__(self) -> str:
        calls = f", tool_calls={self.tool_calls!r}" if self.tool_calls else ""
        return f"ChatAnswer({self.content!r}{calls}, finish_reason={self.finish_reason!r})"

    def _repr_html_(self) -> str:
        thought = f"<details><summary>reasoning</summary>{escape(self.reasoning)}</details>" if self.reasoning else ""
        calls = "".join(
            f"<div><code>{escape(name)}({escape(str(given))})</code></div>" for name, given in self.tool_calls
        )
        return f'{thought}<div style="white-space:pre-wrap">{escape(self.content)}</div>{calls}'


class Chats:
    """Everything a conversation needs: template, grammars, the reading of answers. Made when first asked for.

    Raises:
        ModelLoadError: the model's template can't be used.
    """

    def __init__(self, prepared: Prepared, started: Started) -> None:
        self._closing = ExitStack()
        self._text = text_services(prepared, chat_format(prepared, self._closing), self._closing, started.images)
        directory = started.config.model_dir
        info = model_info(started, (directory.resolve().name,), sampling_defaults(directory))
        self._settings = Settings(model=info, max_waiting=started.config.max_waiting, slots=started.config.max_num_seqs)

    def begin(self, messages: Messages, sampling: SamplingParams | None, fields: Mapping[str, Any]) -> Exchange:
        """An answer to come.

        Raises:
            InvalidRequest: a field is unknown, of another type, or can't be honoured; `field` names it.
        """
        begun = time.monotonic()
        body = (
            {"model": self._settings.model.names[0], "messages": _messages(messages)} | _said(sampling) | dict(fields)
        )
        try:
            request = validate(ChatCompletionRequest, body, lenient=False).request
            job = lower_chat(request, self._text, self._settings)
        except ApiError as error:
            raise InvalidRequest(str((error.loc or ("body", "messages"))[-1]), error.message) from None
        return Exchange(job, Lifters(job, self._text.tokenizer, request.model, begun))

    def close(self) -> None:
        """Ends the processes that render and compile grammars."""
        self._closing.close()


class Lifters:
    """Deltas of one job to chunks, with the bookkeeping that usage needs."""

    def __init__(self, job: Job, tokenizer: Any, model: str, begun: float) -> None:
        self._ledger = Ledger(job, Stopwatch(begun, begun, time.monotonic()))
        self._lifter = Lifter(job, self._ledger, tokenizer, model=model, created=int(time.time()))

    def lift(self, delta: Delta) -> list[Chunk]:
        """The chunks that a delta makes; the last of all has the usage."""
        chunks = self._lifter.lift(delta)
        if self._lifter.finished and chunks:
            chunks[-1]["usage"] = self._ledger.usage()
        return chunks


@dataclass(frozen=True)
class Exchange:
    """A question on its way to an answer."""

    job: Job
    lifters: Lifters
    chunks: list[Chunk] = field(default_factory=list)

    def take(self, delta: Delta) -> Iterator[ChatPiece]:
        """What a delta adds."""
        for chunk in self.lifters.lift(delta):
            self.chunks.append(chunk)
            yield from map(_piece, cast(Any, chunk)["choices"])

    def answer(self) -> ChatAnswer:
        """The whole, once every delta was taken."""
        return ChatAnswer(cast(dict[str, Any], fold(self.chunks, "chat")))


def _piece(choice: Mapping[str, Any]) -> ChatPiece:
    delta = choice["delta"]
    return ChatPiece(
        delta.get("content") or "",
        delta.get("reasoning_content", ""),
        tuple(delta.get("tool_calls", ())),
        choice["index"],
        choice["finish_reason"],
    )


def _said(sampling: SamplingParams | None) -> dict[str, Any]:
    """Request fields of everything that `sampling` says, so that the model's own defaults change none of it."""
    if sampling is None:
        return {}
    sampling = completed(sampling)
    chosen = {name: value for name in KNOBS if (value := getattr(sampling, name)) not in (None, ())}
    if sampling.logit_bias:
        chosen["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    more: dict[str, Any] = {"n": sampling.n, "max_tokens": sampling.max_tokens, "ignore_eos": sampling.ignore_eos}
    more |= {"stop": list(sampling.stop)} if sampling.stop else {}
    more |= {"logprobs": True, "top_logprobs": sampling.logprobs} if sampling.logprobs is not None else {}
    if sampling.stop_token_ids:
        raise InvalidRequest("stop_token_ids", "stop_token_ids: conversations end with `stop` texts; use those")
    return chosen | more


def _messages(messages: Any) -> list[Any]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise InvalidRequest("messages", "messages must be a text or a list of messages")
    return [_message(message) for message in messages]


def _message(message: Any) -> Any:
    if hasattr(message, "model_dump"):
        message = message.model_dump()  # of the openai client
    if not isinstance(message, Mapping):
        return message
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        return {**message, "content": [_part(part) for part in content]}
    return dict(message)


def _part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if hasattr(part, "save") and hasattr(part, "getbands"):  # PIL's images, without importing PIL
        stored = io.BytesIO()
        part.save(stored, "PNG")
        data = base64.b64encode(stored.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return part


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
