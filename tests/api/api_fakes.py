"""A tokenizer, a chat template and an engine whose outputs can be computed by hand.

Tokens are bytes; the engine says "Hello world" (or what a test gives it) and scores every token by a simple formula.
"""

from __future__ import annotations

import queue
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxserve.api.app import create_app
from jaxserve.api.ports import TextServices
from jaxserve.api.settings import ModelInfo, Settings
from jaxserve.engine.requests import Delta, DraftCounts, FinishReason, Request, Sink, Timing, TokenLogprob
from jaxserve.errors import Overloaded, TemplateError
from jaxserve.text.formats import FORMATS, bind
from jaxserve.text.grammar.constraint import ConstraintBuilder
from jaxserve.text.grammar.matcher import MaskFiller
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer
from jaxserve.text.reading.hidden_stops import TokenStops
from jaxserve.text.tokenizers.streams import ByteStream

BOS, EOS, USER, ASSISTANT, SYSTEM, END = range(256, 262)
THINK, UNTHINK, CALL, UNCALL = range(262, 266)
SPECIALS = {
    "<s>": BOS,
    "</s>": EOS,
    "<|user|>": USER,
    "<|assistant|>": ASSISTANT,
    "<|system|>": SYSTEM,
    "<|end|>": END,
    "<think>": THINK,
    "</think>": UNTHINK,
    "<tool_call>": CALL,
    "</tool_call>": UNCALL,
}
VOCABULARY = 270
"""The model's, where nothing else is said."""
CONTEXT = 2000
FILLER = MaskFiller(1)


class ByteTokenizer:
    """Ids 0..255 are bytes, the rest are the special tokens, `more` of them behind those that are always there."""

    eos_ids = (EOS,)
    special_tokens: Mapping[str, str] = {"bos_token": "<s>", "eos_token": "</s>"}

    def __init__(self, bos_id: int | None = BOS, more: Iterable[str] = ()) -> None:
        self.bos_id = bos_id
        self.specials = dict(SPECIALS)
        for text in more:
            self.specials.setdefault(text, 256 + len(self.specials))
        self.vocab_size = 256 + len(self.specials)

    def encode(self, text: str, *, add_special_tokens: bool, parse_special: bool = True) -> list[int]:
        ids = [self.bos_id] if add_special_tokens and self.bos_id is not None else []
        while text:
            special = next((s for s in self.specials if parse_special and text.startswith(s)), None)
            ids += [self.specials[special]] if special else list(text[0].encode())
            text = text[len(special) if special else 1 :]
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        stream = self.stream(skip_special_tokens=skip_special_tokens)
        return "".join([stream.push(token) for token in ids]) + stream.flush()

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < 256:
            return bytes([token_id])
        return next((text.encode() for text, token in self.specials.items() if token == token_id), b"")

    def token_text(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def id_of(self, text: str) -> int | None:
        return self.specials.get(text)

    def is_special(self, token_id: int) -> bool:
        return 256 <= token_id < self.vocab_size

    def stream(self, *, skip_special_tokens: bool) -> ByteStream:
        return ByteStream(lambda t: b"" if skip_special_tokens and self.is_special(t) else self.token_bytes(t))


class PlainTemplate:
    """<s><|role|>text<|end|>...<|assistant|>; refuses conversations that begin with an answer, as many templates do.

    With `tools`, it shows the names of tools and calls; `opens_reasoning` ends the prompt with <think> unless the
    argument `enable_thinking` is false.
    """

    def __init__(self, *, tools: bool = False, opens_reasoning: bool = False) -> None:
        self.tools, self.opens_reasoning = tools, opens_reasoning
        self.source = "{{ tools }}" if tools else "{{ messages }}"

    def accepts(self, name: str) -> bool:
        return self.tools and name == "tools"

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_args: Any,
    ) -> str:
        turns = [m for m in messages if m["role"] != "system"]
        if turns and turns[0]["role"] == "assistant":
            raise TemplateError("messages", "messages: the chat template says: the first message must be a user's")
        text = "<s>"
        if tools:
            text += "<|system|>" + ",".join(tool["function"]["name"] for tool in tools) + "<|end|>"
        for m in messages:
            name = f"({m['name']})" if "name" in m else ""
            think = f"[{m['reasoning_content']}]" if "reasoning_content" in m else ""
            call = f"#{m['tool_call_id']}" if "tool_call_id" in m else ""
            made = "".join(f"={c['function']['name']}{c['function']['arguments']}" for c in m.get("tool_calls", ()))
            text += f"<|{m['role']}|>{name}{call}{think}{m['content']}{made}<|end|>"
        if not add_generation_prompt:
            return text
        thinks = self.opens_reasoning and template_args.get("enable_thinking", True)
        return text + "<|assistant|>" + ("<think>" if thinks else "")


def logprob_of(token: int) -> float:
    """The fake engine's score of any token anywhere."""
    return -(token % 7 + 1) / 8


def sampling_logprob_of(token: int) -> float:
    return logprob_of(token) / 2


def score(token: int, alternatives: int, *, sampled: bool = True) -> TokenLogprob:
    """The token is always the most likely; the next ids follow, each less likely by 1."""
    top = tuple(((token + i) % 256 if i else token, logprob_of(token) - i) for i in range(alternatives))
    return TokenLogprob(token, logprob_of(token), sampling_logprob_of(token) if sampled else None, top)


@dataclass(frozen=True)
class FakeStats:
    running: int = 0
    waiting: int = 3
    free_pages: int = 41
    compilations: int = 7


Reply = Callable[[Request, int], Sequence[int]]


def say(text: str, *, eos: bool = True, tokenizer: ByteTokenizer | None = None) -> Reply:
    """A reply that is the same for every request; choice i > 0 ends in its number; special tokens are spelled out."""
    encode = partial((tokenizer or ByteTokenizer()).encode, add_special_tokens=False)
    return lambda request, choice: [*encode(text + (str(choice) if choice else "")), *([EOS] if eos else [])]


def draw(row: npt.NDArray[np.int32], wanted: int, vocabulary: int) -> int:
    """The wanted token if a mask allows it, else the allowed token that ends things soonest."""
    allowed = set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))[:vocabulary].tolist())
    order = (wanted, EOS, UNCALL, CALL, *b'"}]0', *range(33, vocabulary), *range(33))
    return next((token for token in order if token in allowed), EOS)


@dataclass
class FakeEngine:
    """Streams a reply from its own thread, one token for each delta, all choices in turn."""

    reply: Reply = field(default_factory=lambda: say("Hello world"))
    cached: int = 0
    delay: float = 0.0
    """Seconds before each round of tokens."""
    overloaded_after: int | None = None
    """Requests accepted before the queue is full."""
    fail: Exception | None = None
    fail_after: int = 0
    """Tokens of a choice after which it fails."""
    finish_with: FinishReason | None = None
    healthy: bool = True
    ready: bool = True
    hidden_size: int = 3
    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)

    @property
    def vocabulary(self) -> int:
        """The model's; the tokenizer knows fewer ids, as real ones do."""
        return self.tokenizer.vocab_size + 4

    def __post_init__(self) -> None:
        self.requests: list[Request] = []
        self.aborted: list[str] = []
        self.running: set[str] = set()
        self.owned = ExitStack()
        """What ends with the engine: FastAPI remembers the routes of every app, and with them all that these use."""
        self.gate = threading.Event()
        self.gate.set()
        self._inbox: queue.SimpleQueue[tuple[Request, Sink, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, request: Request, sink: Sink) -> None:
        if self.overloaded_after is not None and len(self.requests) >= self.overloaded_after:
            raise Overloaded("the queue is full")
        self.requests.append(request)
        self.running.add(request.id)
        self._inbox.put((request, sink, time.monotonic()))

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self.running.discard(request_id)

    def stats(self) -> FakeStats:
        return FakeStats(running=len(self.running))

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()
        self.owned.close()

    def _run(self) -> None:
        work: list[_Run] = []
        while True:
            while work == [] or not self._inbox.empty():
                item = self._inbox.get()
                if item is None:
                    return
                work.append(_Run(self, *item))
            if self.delay:
                time.sleep(self.delay)
            self.gate.wait()
            work = [run for run in work if run.request.id in self.running and run.step()]


class _Run:
    """One request inside the fake engine."""

    def __init__(self, engine: FakeEngine, request: Request, sink: Sink, arrived: float) -> None:
        self.engine, self.request, self.sink, self.arrived = engine, request, sink, arrived
        self.admitted = time.monotonic()
        self.first_token: float | None = None
        self.texts = [
            IncrementalDetokenizer(
                engine.tokenizer, skip_special_tokens=request.skip_special_tokens, prefix_ids=request.prompt
            )
            for _ in range(request.n)
        ]
        self.constraints = [request.constraint() for _ in range(request.n)] if request.constraint is not None else []
        hides = request.skip_special_tokens
        self.stops = [TokenStops(request.stop, engine.tokenizer, hides=hides) for _ in range(request.n)]
        self.tokens = [list(engine.reply(request, choice)) for choice in range(request.n)]
        self.position = 0
        self.open = set(range(request.n))

    def step(self) -> bool:
        """One token for every open choice, the highest first so that choice 0 brings the prompt's scores last."""
        self.first_token = self.first_token or time.monotonic()
        for choice in sorted(self.open, reverse=True):
            self._one(choice)
        self.position += 1
        if not self.open:
            self.engine.running.discard(self.request.id)
        return bool(self.open)

    def _one(self, choice: int) -> None:
        request, position = self.request, self.position
        if self.engine.fail is not None and position >= self.engine.fail_after:
            self._end(choice, Delta(request.id, choice, finish_reason="error", error=self.engine.fail))
            return
        if self.engine.finish_with is not None:
            self._end(choice, Delta(request.id, choice, finish_reason=self.engine.finish_with))
            return
        if request.max_tokens == 0:
            self._end(choice, self._delta(choice, None, "", "length"))
            return
        token = self.tokens[choice][position] if position < len(self.tokens[choice]) else ord(".")
        if self.constraints:
            row = np.full(-(-self.engine.vocabulary // 32), -1, np.int32)
            failures = FILLER.fill([(0, self.constraints[choice])], row[None])
            if failures:
                self._end(choice, Delta(request.id, choice, finish_reason="error", error=failures[0]))
                return
            token = draw(row, token, self.engine.vocabulary)
        reason: FinishReason | None = None
        text = ""
        if token in request.stop_token_ids:
            reason = "stop"
        else:
            if self.constraints:
                self.constraints[choice].advance(token)
            text = self.texts[choice].push(token)
            if position + 1 >= request.max_tokens:
                reason = "length"
        shown, hit = self.stops[choice].push(token, text)
        if hit is None and reason is not None:
            more, hit = self.stops[choice].end(self.texts[choice].flush())
            shown += more
        if hit is not None:
            reason = "stop"
        delta = self._delta(choice, token, shown, reason, stop_text=hit)
        if reason is None:
            self.sink(delta)
        else:
            self._end(choice, delta)

    def _end(self, choice: int, delta: Delta) -> None:
        self.open.discard(choice)
        self.sink(delta)

    def _delta(
        self, choice: int, token: int | None, text: str, reason: FinishReason | None, stop_text: str | None = None
    ) -> Delta:
        request, scored = self.request, self.request.logprobs
        return Delta(
            request_id=request.id,
            choice=choice,
            token_ids=() if token is None else (token,),
            text=text,
            logprobs=() if token is None or scored is None else (score(token, scored),),
            prompt_logprobs=self._prompt_logprobs() if choice == 0 and self.position == 0 else None,
            finish_reason=reason,
            stop_text=stop_text,
            cached_tokens=self.engine.cached,
            timing=Timing(
                self.arrived,
                self.admitted,
                self.first_token,
                None if len(self.open) > 1 or not reason else time.monotonic(),
            ),
            concurrent_requests=len(self.engine.running),
            drafts=self._drafts(choice) if reason and request.prediction else None,
            activations=(self.activation(self.position),) if request.want_activations and token is not None else (),
            routing=(bytes([1, 2, 3, self.position]),) if request.want_routing and token is not None else (),
            prompt_routing=self._prompt_routing() if choice == 0 and self.position == 0 else (),
        )

    def _drafts(self, choice: int) -> DraftCounts:
        """As if every predicted token had been tried alone."""
        hits = [a == b for a, b in zip(self.request.prediction, self.tokens[choice], strict=False)]
        counts = sum(hits), len(hits)
        return DraftCounts((counts,), counts)

    def activation(self, position: int) -> bytes:
        return struct.pack(f"<{self.engine.hidden_size}f", *range(position, position + self.engine.hidden_size))

    def _prompt_routing(self) -> tuple[bytes | None, ...]:
        request, first = self.request, self.request.prompt_logprobs_from
        if first is None or not request.want_routing:
            return ()
        return tuple(bytes([9, 8, 7, p]) if p else None for p in range(first, len(request.prompt)))

    def _prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        first = self.request.prompt_logprobs_from
        if first is None:
            return None
        return tuple(
            score(token, self.request.logprobs or 0, sampled=False) if position else None
            for position, token in list(enumerate(self.request.prompt))[first:]
        )


def model_info(**changes: Any) -> ModelInfo:
    defaults: dict[str, Any] = {
        "names": ("fake", "accounts/test/models/fake"),
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "created": 1700000000,
    }
    return ModelInfo(**{**defaults, **changes})


def build(
    engine: FakeEngine,
    *,
    bos: bool = True,
    template: Any = True,
    chat_format: str = "generic",
    **settings: Any,
) -> Any:
    """An app around a fake engine."""
    images, fetcher = settings.pop("images", None), settings.pop("fetcher", None)
    profile, traces = settings.pop("profile", None), settings.pop("traces", None)
    model = settings.pop("model", None) or model_info(vocab_size=engine.vocabulary, reads_images=images is not None)
    tokenizer: Any = engine.tokenizer if bos else ByteTokenizer(None)
    chat: Any = (PlainTemplate() if template else None) if isinstance(template, bool) else template
    bound = bind(FORMATS[chat_format], tokenizer, chat)
    constraints = ConstraintBuilder(bound, vocab_size=engine.vocabulary)
    engine.owned.callback(constraints.close)
    text = TextServices(tokenizer, bound, constraints, images)
    chosen = Settings(model=model, **settings)
    return create_app(engine, text, chosen, fetcher=fetcher, profile=profile, traces=traces)


def ids_of(text: str) -> list[int]:
    return ByteTokenizer().encode(text, add_special_tokens=False)
