"""The notebook face: a model as an object, without a server."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jaxserve.engine.engine import EngineStats
from jaxserve.engine.requests import Delta, FinishReason, Request, TokenLogprob
from jaxserve.errors import ContextLengthExceeded, InvalidRequest
from jaxserve.options import EngineOptions
from jaxserve.resolve import bundled_model_dir, resolve_model
from jaxserve.sampling.params import SamplingParams, check_token_ids
from jaxserve.startup import Progress, Started, prepare, start


@dataclass
class Completion:
    """One finished completion."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class LLM:
    """A model that generates, in this process.

    Example:
        >>> from jaxserve import LLM, SamplingParams
        >>> with LLM() as llm:  # the bundled model
        ...     llm.generate("Once upon a time", SamplingParams(temperature=0), max_tokens=8)[0].finish_reason
        'length'

    Args:
        model_dir: what `jaxserve serve` takes as MODEL: a directory in hub layout, or one that `jaxserve convert`
            wrote, also behind `gs://`; a GGUF file; a model of the hub ("org/name"); "smollm2"; None = the bundled
            model.
        options: further fields of `EngineOptions` (dtype, max_num_seqs, kv_memory, mesh ...; all of them are in
            docs/configuration.md).

    Raises:
        ModelLoadError: the model can't be served.
    """

    def __init__(self, model_dir: str | Path | None = None, **options: Any) -> None:
        directory = bundled_model_dir() if model_dir is None else resolve_model(model_dir)
        self._adopt(start(prepare(EngineOptions(model_dir=directory, **options))))

    @classmethod
    def from_options(cls, options: EngineOptions, *, progress: Progress = lambda stage, done, total: None) -> Self:
        """As the constructor, with the engine's options as one object and a progress callback."""
        llm = cls.__new__(cls)
        llm._adopt(start(prepare(options), progress=progress))
        return llm

    def _adopt(self, started: Started) -> None:
        self._started = started
        self.tokenizer = self._started.tokenizer
        self.config = self._started.config
        self._ids = itertools.count()

    def generate(
        self,
        prompts: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]],
        sampling: SamplingParams | None = None,
        *,
        max_tokens: int = 128,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        ignore_eos: bool = False,
    ) -> list[Completion]:
        """Completes one or several prompts (texts or token ids) together; results are in the order of the prompts.

        Raises:
            ContextLengthExceeded: a prompt leaves no room for an answer.
            EngineStopped: the engine has been closed.
            InvalidRequest: an empty prompt; one that holds, or `logit_bias` that names, a token the model lacks.
        """
        outbox: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        requests = [
            self._request(ids, sampling or SamplingParams(), max_tokens, tuple(stop), logprobs, ignore_eos)
            for ids in self._tokenize(prompts)
        ]
        results = {request.id: Completion() for request in requests}
        for request in requests:
            self._started.engine.submit(request, outbox.put)
        open_requests = len(requests)
        while open_requests:
            delta = outbox.get()
            if delta.error is not None:
                raise delta.error
            _fold(results[delta.request_id], delta)
            open_requests -= delta.finish_reason is not None
        return [results[request.id] for request in requests]

    def stream(
        self,
        prompt: str | Sequence[int],
        sampling: SamplingParams | None = None,
        *,
        max_tokens: int = 128,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Yields the completion's text as it comes; leaving the loop early aborts the request."""
        (ids,) = self._tokenize(prompt)
        request = self._request(ids, sampling or SamplingParams(), max_tokens, tuple(stop), None, False)
        outbox: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        self._started.engine.submit(request, outbox.put)
        try:
            while True:
                delta = outbox.get()
                if delta.error is not None:
                    raise delta.error
                if delta.text:
                    yield delta.text
                if delta.finish_reason is not None:
                    return
        finally:
            self._started.engine.abort(request.id)

    def stats(self) -> EngineStats:
        """Queues, pages and counters as of now."""
        return self._started.engine.stats()

    def close(self) -> None:
        """Stops the engine; running requests fail."""
        self._started.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tokenize(
        self, prompts: str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
    ) -> list[tuple[int, ...]]:
        if isinstance(prompts, str):
            return [tuple(self.tokenizer.encode(prompts, add_special_tokens=True))]
        if all(isinstance(item, int) for item in prompts):
            return [tuple(prompts)]  # type: ignore[arg-type]
        return [ids for prompt in prompts for ids in self._tokenize(prompt)]  # type: ignore[arg-type]

    def _check_tokens(self, prompt: tuple[int, ...], sampling: SamplingParams) -> None:
        vocab_size = self._started.model_config.vocab_size
        for token in (min(prompt), max(prompt)):
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    "prompts", f"a prompt holds token {token}, but the vocabulary has {vocab_size} tokens"
                )
        check_token_ids(sampling, vocab_size)

    def _request(
        self,
        prompt: tuple[int, ...],
        sampling: SamplingParams,
        max_tokens: int,
        stop: tuple[str, ...],
        logprobs: int | None,
        ignore_eos: bool,
    ) -> Request:
        if not prompt:
            raise InvalidRequest("prompts", "a prompt holds no tokens")
        self._check_tokens(prompt, sampling)
        room = self.config.max_model_len - len(prompt)
        if room < 1:
            raise ContextLengthExceeded(
                "prompts", f"a prompt of {len(prompt)} tokens does not fit the context of {self.config.max_model_len}"
            )
        return Request(
            id=f"local-{next(self._ids)}",
            prompt=prompt,
            sampling=sampling,
            max_tokens=min(max_tokens, room),
            stop=stop,
            stop_token_ids=() if ignore_eos else self.tokenizer.eos_ids,
            logprobs=logprobs,
        )


def _fold(completion: Completion, delta: Delta) -> None:
    completion.text += delta.text
    completion.token_ids.extend(delta.token_ids)
    completion.logprobs.extend(delta.logprobs)
    completion.finish_reason = delta.finish_reason or completion.finish_reason
