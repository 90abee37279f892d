"""`LLM`: a model that generates, in this process."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

from jaxserve.engine.engine import EngineStats
from jaxserve.engine.requests import Request
from jaxserve.errors import ContextLengthExceeded, EngineStopped, InvalidRequest
from jaxserve.llm import arguments
from jaxserve.llm.arguments import Prompt, Prompts
from jaxserve.llm.call import Call
from jaxserve.llm.chat import ChatAnswer, ChatPiece, Chats, Exchange, Messages
from jaxserve.llm.completion import Completion
from jaxserve.llm.inspection import FloatArray, Inspector, Score
from jaxserve.llm.keywords import documented, engine_options
from jaxserve.llm.params import SamplingParams, completed
from jaxserve.llm.progress import Bars
from jaxserve.llm.rules import Samplers, counted
from jaxserve.llm.running import Running
from jaxserve.options import EngineOptions
from jaxserve.prepared import Prepared, prepare
from jaxserve.resolve import bundled_model_dir, resolve_model
from jaxserve.resolve.chat_model import cache_directory
from jaxserve.sampling import params as knobs
from jaxserve.sampling.params import check_token_ids
from jaxserve.sampling.rule import Rule
from jaxserve.startup import Progress, Started, start, use_compilation_cache

Sampling = knobs.SamplingParams | Sequence[knobs.SamplingParams]


class LLM:
    """A model that generates, in this process.

    Example:
        >>> from jaxserve import LLM, SamplingParams
        >>> with LLM() as llm:  # the bundled model
        ...     llm.generate("Once upon a time", SamplingParams(temperature=0, max_tokens=8))[0].finish_reason
        'length'

    It ends with its `with` block, with `close()`, or when nothing refers to it any more; the device's memory is free
    then. Several may live in one process. Every method may be called from several threads.

    Args:
        model: what `jaxserve serve` takes as MODEL: a directory in hub layout, or one that `jaxserve convert` wrote,
            also behind `gs://`; a GGUF file; a model of the hub ("org/name"); "smollm2"; None = the bundled model.
        progress: whether bars show loading, compiling and batches; None = where a person looks.
        compilation_cache: directory for compiled programs; None = that of the server.

    Raises:
        ModelLoadError: the model or an option can't be used.
    """

    @documented
    def __init__(
        self,
        model: str | Path | None = None,
        *,
        progress: bool | None = None,
        compilation_cache: str | Path | None = None,
        **options: Any,
    ) -> None:
        directory = bundled_model_dir() if model is None else resolve_model(model)
        use_compilation_cache(Path(compilation_cache) if compilation_cache else cache_directory() / "xla")
        shown = _watched() if progress is None else progress
        self._adopt(engine_options(directory, options), Bars() if shown else _silent, shown=shown)

    @classmethod
    def from_options(cls, options: EngineOptions, *, progress: Progress = lambda stage, done, total: None) -> Self:
        """As the constructor, with the engine's options as one object and a progress callback."""
        llm = cls.__new__(cls)
        llm._adopt(options, progress, shown=False)
        return llm

    def _adopt(self, options: EngineOptions, progress: Progress, *, shown: bool) -> None:
        self._shown = shown
        self._prepared: Prepared = prepare(options)
        started = start(self._prepared, progress=progress)
        self.tokenizer = started.tokenizer
        self.config = started.config
        self._ids = itertools.count()
        self._runs: set[Running] = set()
        self._kept: Started | None = started
        self._finish = weakref.finalize(self, started.engine.close)

    # ------------------------------------------------------------------ completions

    def generate(
        self,
        prompts: Prompts,
        sampling: Sampling | None = None,
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        logprobs: int | None = None,
        ignore_eos: bool | None = None,
    ) -> list[Completion]:
        """Completes one or several prompts together.

        Args:
            prompts: a text, token ids (a list or an array), or a list of these.
            sampling: for all prompts, or one for each; None = `SamplingParams()`.
            max_tokens: instead of what `sampling` says, as the others below.
            stop: texts that end a completion.
            logprobs: alternatives to return beside each token.
            ignore_eos: whether to go on where the model would end.

        Returns:
            In the order of the prompts, the `n` completions of one after the other.

        Raises:
            ContextLengthExceeded: a prompt leaves no room for an answer.
            EngineStopped: the model has been closed.
            InvalidRequest: an argument is of another type or out of range; `field` names it.
        """
        call = self._call(prompts, sampling, max_tokens=max_tokens, stop=stop, logprobs=logprobs, ignore_eos=ignore_eos)
        with tqdm(total=len(call.completions), unit="completion", disable=not self._shown or len(call) < 2) as bar:
            for delta in call.running:
                call.take(delta)
                bar.update(delta.finish_reason is not None)
        return call.completions

    async def agenerate(self, prompts: Prompts, sampling: Sampling | None = None, **changes: Any) -> list[Completion]:
        """As `generate`, for `await`; cancelling it aborts what runs."""
        call = self._call(prompts, sampling, **changes)
        async for delta in call.running:
            call.take(delta)
        return call.completions

    def stream(self, prompt: Prompt, sampling: knobs.SamplingParams | None = None, **changes: Any) -> Iterator[str]:
        """Yields one completion's text as it comes; `changes` as of `generate`. Leaving the loop early aborts it."""
        for delta in self._single(prompt, sampling, changes):
            if delta.text:
                yield delta.text

    async def astream(
        self, prompt: Prompt, sampling: knobs.SamplingParams | None = None, **changes: Any
    ) -> AsyncIterator[str]:
        """As `stream`, for `async for`."""
        async for delta in self._single(prompt, sampling, changes):
            if delta.text:
                yield delta.text

    # ------------------------------------------------------------------ conversations

    def chat(self, messages: Messages, sampling: SamplingParams | None = None, **fields: Any) -> ChatAnswer:
        """Answers a conversation.

        Args:
            messages: a text, or messages as over HTTP; PIL images may be among the parts of a content.
            sampling: how the answer is drawn, all of it; None = the model's own defaults, but for what `fields` say.
            fields: those of `POST /v1/chat/completions`: tools, tool_choice, response_format, reasoning_effort ...

        Raises:
            EngineStopped: the model has been closed.
            InvalidRequest: a field is unknown or can't be honoured; `field` names it.
        """
        exchange = self._exchange(messages, sampling, fields)
        for delta in self._run(exchange):
            for _ in exchange.take(delta):
                pass
        return exchange.answer()

    async def achat(self, messages: Messages, sampling: SamplingParams | None = None, **fields: Any) -> ChatAnswer:
        """As `chat`, for `await`; cancelling it aborts what runs."""
        exchange = self._exchange(messages, sampling, fields)
        async for delta in self._run(exchange):
            for _ in exchange.take(delta):
                pass
        return exchange.answer()

    def stream_chat(
        self, messages: Messages, sampling: SamplingParams | None = None, **fields: Any
    ) -> Iterator[ChatPiece]:
        """As `chat`, piece by piece; leaving the loop early aborts it."""
        exchange = self._exchange(messages, sampling, fields)
        for delta in self._run(exchange):
            yield from exchange.take(delta)

    async def astream_chat(
        self, messages: Messages, sampling: SamplingParams | None = None, **fields: Any
    ) -> AsyncIterator[ChatPiece]:
        """As `stream_chat`, for `async for`."""
        exchange = self._exchange(messages, sampling, fields)
        async for delta in self._run(exchange):
            for piece in exchange.take(delta):
                yield piece

    # ------------------------------------------------------------------ the model itself

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, as `generate` would make them."""
        told = arguments.whole_text("text", text)
        return list(self.tokenizer.encode(told, add_special_tokens=add_special_tokens))

    def score(self, texts: Prompts) -> list[Score]:
        """Log-likelihood of each text, token by token; nothing is generated.

        Raises:
            ContextLengthExceeded: a text is longer than the context.
            EngineStopped: the model has been closed.
            InvalidRequest: see `generate`.
        """
        ids = arguments.prompts(texts, self.tokenizer, self._vocab_size)
        scores = {f"score-{next(self._ids)}": Score(each, tokenizer=self.tokenizer) for each in ids}
        for delta in self._running([self._scoring(name, each) for name, each in zip(scores, ids, strict=True)]):
            scores[delta.request_id].add(delta)
        return list(scores.values())

    def logits(self, prompt: Prompt) -> FloatArray:
        """float32 [tokens, V]: logits of what follows each token of a text. A new length may compile once."""
        return self._inspector.logits(self._one(prompt))

    def hidden(self, prompt: Prompt) -> FloatArray:
        """float32 [tokens, D]: hidden states after the final norm. A new length may compile once."""
        return self._inspector.hidden(self._one(prompt))

    def use(self, rule: Rule | None) -> None:
        """Lets a function of one's own change the logits of every token from now on; None = no longer.

        Compiles the sampling programs, once; nothing compiles afterwards. Whatever `SamplingParams` or grammars ask for
        comes after it. The same seed gives the same tokens, alone or beside others: the rule sees one row at a time.

        Args:
            rule: `rule(logits, rows)` of float32 [rows, vocab] and `jaxserve.llm.Rows` gives such logits; -inf bans a
                token. A pure function that jax can trace.

        Raises:
            EngineStopped: the model has been closed.
            InvalidRequest: it gives something else, or requests run.
        """
        self._samplers.use(rule)

    def stats(self) -> EngineStats:
        """Queues, pages and counters as of now.

        Raises:
            EngineStopped: the model has been closed.
        """
        return self._started.engine.stats()

    def close(self) -> None:
        """Stops the engine and frees the device's memory; running requests fail. Idempotent."""
        if "_chats" in vars(self):
            self._chats.close()
        self._finish()
        self._kept = None
        for made in ("_chats", "_inspector", "_samplers"):
            vars(self).pop(made, None)
        gc.collect()  # compiled programs and parameters refer to each other

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self.config.model_dir.resolve().name
        if self._kept is None:
            return f"LLM({name!r}, closed)"
        size = f"{self._kept.num_parameters / 1e6:,.1f}M parameters"
        return f"LLM({name!r}, {size}, {self.config.dtype}, {self._kept.device}, context {self.config.max_model_len})"

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_")]

    # ------------------------------------------------------------------ from arguments to the engine's requests

    @property
    def _started(self) -> Started:
        if self._kept is None:
            raise EngineStopped("this model has been closed")
        return self._kept

    @property
    def _vocab_size(self) -> int:
        return self._started.model_config.vocab_size

    @cached_property
    def _chats(self) -> Chats:
        chats = Chats(self._prepared, self._started)
        weakref.finalize(self, chats.close)
        return chats

    @cached_property
    def _inspector(self) -> Inspector:
        return Inspector(self._started.runner.model)

    @cached_property
    def _samplers(self) -> Samplers:
        return Samplers(self._started.runner.programs, self._vocab_size, self._runs)

    def _exchange(self, messages: Messages, sampling: SamplingParams | None, fields: dict[str, Any]) -> Exchange:
        self._started  # noqa: B018 - a closed model says so
        return self._chats.begin(messages, sampling, fields)

    def _run(self, exchange: Exchange) -> Running:
        return self._running([prompt.request for prompt in exchange.job.prompts])

    def _running(self, requests: list[Request]) -> Running:
        return Running(self._started.engine, counted(requests) if self._samplers.ruled else requests, self._runs)

    def _single(self, prompt: Prompt, sampling: knobs.SamplingParams | None, changes: dict[str, Any]) -> Running:
        call = self._call(prompt, sampling, **changes)
        if len(call.completions) != 1:
            raise InvalidRequest("prompt", "one completion of one prompt can be streamed; use generate for several")
        return call.running

    def _one(self, prompt: Prompt) -> tuple[int, ...]:
        ids = arguments.prompts(prompt, self.tokenizer, self._vocab_size)
        if len(ids) != 1:
            raise InvalidRequest("prompt", f"one text at a time, got {len(ids)}")
        self._room(ids[0], at_least=0)
        return ids[0]

    def _call(self, prompts: Prompts, sampling: Sampling | None, **changes: Any) -> Call:
        ids = arguments.prompts(prompts, self.tokenizer, self._vocab_size)
        given = {name: value for name, value in changes.items() if value is not None}
        params = [completed(each, given) for each in _each(sampling, len(ids))]
        requests = [self._request(*pair) for pair in zip(ids, params, strict=True)]
        return Call(self._running(requests), requests, self.tokenizer)

    def _request(self, prompt: tuple[int, ...], params: SamplingParams) -> Request:
        check_token_ids(params, self._vocab_size)
        arguments.check_vocabulary("stop_token_ids", params.stop_token_ids, self._vocab_size)
        ends = () if params.ignore_eos else self.tokenizer.eos_ids
        return Request(
            id=f"local-{next(self._ids)}",
            prompt=prompt,
            sampling=params.knobs(),
            max_tokens=min(params.max_tokens, self._room(prompt)),
            n=params.n,
            stop=tuple(params.stop),
            stop_token_ids=(*ends, *params.stop_token_ids),
            logprobs=params.logprobs,
        )

    def _scoring(self, request_id: str, ids: tuple[int, ...]) -> Request:
        self._room(ids, at_least=0)
        neutral = knobs.SamplingParams()
        return Request(id=request_id, prompt=ids, sampling=neutral, max_tokens=0, logprobs=0, prompt_logprobs_from=0)

    def _room(self, prompt: tuple[int, ...], at_least: int = 1) -> int:
        room = self.config.max_model_len - len(prompt)
        if room < at_least:
            raise ContextLengthExceeded(
                "prompts",
                f"a prompt of {len(prompt)} tokens does not fit the context of {self.config.max_model_len}",
            )
        return room


def _each(sampling: Sampling | None, count: int) -> list[knobs.SamplingParams | None]:
    if not isinstance(sampling, Sequence):
        return [sampling] * count
    if len(sampling) != count:
        raise InvalidRequest("sampling", f"sampling has {len(sampling)} entries for {count} prompts")
    return list(sampling)


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _watched() -> bool:
    """Whether a person sees what is written: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
