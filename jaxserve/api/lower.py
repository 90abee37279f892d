"""Schema to engine requests: validation of everything, templates, tokens. What leaves here, the engine trusts.

Runs in worker threads: templates and tokenizers take milliseconds, which the event loop must not lose.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Literal

from jaxserve.api.conversation import Conversation, template_message, truncate
from jaxserve.api.wishes import (
    Parsing,
    completion_budget,
    constrain,
    follow,
    parsing,
    reasoning_plan,
    tool_use,
)
from jaxserve.api.ports import Constrained, TextServices, Tokenizer
from jaxserve.api.prompts import Echo, PromptTokens, completion_prompts, echo_of, keep_last
from jaxserve.api.rules import check
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest
from jaxserve.api.settings import Settings
from jaxserve.engine.types import Request
from jaxserve.errors import ContextLengthExceeded, InvalidRequest, TemplateError
from jaxserve.sampling.params import SamplingParams

Endpoint = Literal["chat", "completions"]
LogprobFormat = Literal["legacy", "new"]

_KNOBS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "mirostat_target",
    "mirostat_lr",
)


@dataclass(frozen=True)
class View:
    """What of the engine's output a response shows."""

    logprobs: LogprobFormat | None = None
    top_logprobs: int = 0
    token_ids: bool = False
    raw_output: bool = False
    perf_metrics: bool = False
    closing_usage: bool = False
    """End a stream with a chunk that has `usage` and no choices."""


@dataclass(frozen=True)
class LoweredPrompt:
    """One prompt: the engine's request and what is shown of the prompt."""

    request: Request
    tokens: PromptTokens
    echo: Echo | None
    grammar: str | None = None
    """The grammar that the output follows."""
    parsing: Parsing | None = None
    """How the output becomes a message; None = the text is the answer."""


@dataclass(frozen=True)
class Job:
    """A validated API request, ready to submit."""

    endpoint: Endpoint
    prompts: tuple[LoweredPrompt, ...]
    view: View
    stream: bool
    id: str


def lower_chat(request: ChatCompletionRequest, text: TextServices, settings: Settings) -> Job:
    """Lowers a chat request.

    Raises:
        UnknownModel: the request names another model.
        InvalidRequest: something in it can't be honoured; its subclasses tell what only the model can know.
    """
    check(request, settings)
    if text.chat is None:
        raise TemplateError("messages", "messages: this model has no chat template; use /v1/completions")
    use, plan = tool_use(request), reasoning_plan(request, text.format)
    conversation = Conversation(
        text.chat,
        text.tokenizer,
        safe=bool(request.safe_tokenization),
        tools=tuple(tool.for_template(described=text.format.handover.needs_description) for tool in use.tools),
        template_args=plan.template_args,
    )
    messages = text.format.prepare([template_message(message) for message in request.messages], plan)
    if request.prompt_truncate_len is not None:
        messages = truncate(conversation, messages, request.prompt_truncate_len)
    prompt = conversation.prompt(messages, fragments=bool(request.raw_output))
    constraints = constrain(request, [prompt], text, use=use, reasoning=plan.enabled, budget=plan.budget)
    reading = parsing(text.format, plan, use, prompt)
    return _job("chat", "messages", request, [prompt], constraints, text.tokenizer, settings, reading)


def lower_completion(request: CompletionRequest, text: TextServices, settings: Settings) -> Job:
    """Lowers a completions request, which may hold several prompts.

    Raises:
        UnknownModel: the request names another model.
        InvalidRequest: something in it can't be honoured; its subclasses tell what only the model can know.
    """
    check(request, settings)
    prompts = completion_prompts(
        request.prompt,
        text.tokenizer,
        vocab_size=settings.model.vocab_size,
        parse_special=not request.safe_tokenization,
    )
    if request.prompt_truncate_len is not None:
        prompts = [keep_last(prompt, request.prompt_truncate_len) for prompt in prompts]
    constraints = constrain(request, prompts, text, budget=completion_budget(request, text.format))
    return _job("completions", "prompt", request, prompts, constraints, text.tokenizer, settings)


def _job(
    endpoint: Endpoint,
    field: str,
    request: GenerationRequest,
    prompts: list[PromptTokens],
    constraints: list[Constrained | None],
    tokenizer: Tokenizer,
    settings: Settings,
    reading: Parsing | None = None,
) -> Job:
    job_id = ("chatcmpl-" if endpoint == "chat" else "cmpl-") + secrets.token_hex(16)
    _check_prompt_tokens(field, prompts, settings)
    budgets = [_max_tokens(endpoint, field, request, len(prompt.ids), settings) for prompt in prompts]
    if request.n * sum(budgets) > settings.limits.max_generated_tokens:
        raise InvalidRequest(
            "max_tokens",
            f"max_tokens: n x max_tokens exceeds this server's {settings.limits.max_generated_tokens} tokens",
        )
    sampling = _sampling(request, settings.model.vocab_size)
    lowered = []
    for index, (prompt, budget, constrained) in enumerate(zip(prompts, budgets, constraints, strict=True)):
        echo = _echo(request, prompt, tokenizer)
        engine_request = _engine_request(f"{job_id}-{index}", request, prompt, budget, sampling, echo, tokenizer)
        engine_request = follow(engine_request, constrained, reading, ignore_eos=request.ignore_eos)
        grammar = constrained.grammar if constrained is not None else None
        lowered.append(LoweredPrompt(engine_request, prompt, echo, grammar, reading))
    return Job(endpoint, tuple(lowered), _view(request), bool(request.stream), job_id)


def _engine_request(
    request_id: str,
    request: GenerationRequest,
    prompt: PromptTokens,
    max_tokens: int,
    sampling: SamplingParams,
    echo: Echo | None,
    tokenizer: Tokenizer,
) -> Request:
    view = _view(request)
    stops = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    scored = view.logprobs is not None and echo is not None and echo.first < len(prompt.ids)
    return Request(
        id=request_id,
        prompt=prompt.ids,
        sampling=sampling,
        max_tokens=max_tokens,
        n=request.n,
        stop=tuple(dict.fromkeys(stops)),
        stop_token_ids=() if request.ignore_eos else tuple(tokenizer.eos_ids),
        logprobs=view.top_logprobs if view.logprobs is not None else None,
        prompt_logprobs_from=echo.first if scored and echo is not None else None,
        cache_key=_cache_key(request),
        cache_max_len=request.prompt_cache_max_len,
        want_activations=bool(request.return_last_activation),
        want_routing=bool(request.return_routing_matrix),
    )


def _check_prompt_tokens(field: str, prompts: list[PromptTokens], settings: Settings) -> None:
    context, total = settings.model.context_length, settings.limits.max_prompt_tokens
    for index, prompt in enumerate(prompts):
        if len(prompt.ids) >= context:
            where = field if len(prompts) == 1 else f"{field}.{index}"
            raise ContextLengthExceeded(
                where,
                f"{where}: the prompt has {len(prompt.ids)} tokens; the model's context holds {context}"
                " with at least one for the output",
            )
    if total is not None and sum(len(prompt.ids) for prompt in prompts) > total:
        raise InvalidRequest(field, f"{field}: more than this server's limit of {total} prompt tokens")


def _max_tokens(
    endpoint: Endpoint, field: str, request: GenerationRequest, prompt_tokens: int, settings: Settings
) -> int:
    """Tokens to generate: as asked, lowered to fit the context, or refused where the caller wants that."""
    name = "max_tokens" if request.max_tokens is not None else "max_completion_tokens"
    asked: int | None = getattr(request, name)
    room = settings.model.context_length - prompt_tokens
    if asked is None:
        chat = endpoint == "chat"
        return min(settings.max_tokens(chat=chat), room)
    if asked > room and request.context_length_exceeded_behavior == "error":
        raise ContextLengthExceeded(
            name,
            f"{name}: {asked} plus {prompt_tokens} tokens of {field} exceed the context of"
            f" {settings.model.context_length}",
        )
    return min(asked, room)


def _sampling(request: GenerationRequest, vocab_size: int) -> SamplingParams:
    given = {name: getattr(request, name) for name in _KNOBS if getattr(request, name) is not None}
    seed = secrets.randbits(64) if request.seed is None else request.seed
    return SamplingParams(**given, logit_bias=_logit_bias(request, vocab_size), seed=(seed + 2**63) % 2**64 - 2**63)


def _logit_bias(request: GenerationRequest, vocab_size: int) -> tuple[tuple[int, float], ...]:
    biases: dict[int, float] = {}
    for key, bias in (request.logit_bias or {}).items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < vocab_size):
            raise InvalidRequest(
                "logit_bias",
                f"logit_bias: {key[:20]!r} is not a token id of this model (0 to {vocab_size - 1})",
            )
        if int(key) in biases:
            raise InvalidRequest("logit_bias", f"logit_bias: token {int(key)} is given twice")
        biases[int(key)] = bias
    return tuple(biases.items())


def _cache_key(request: GenerationRequest) -> str:
    keys = (request.prompt_cache_isolation_key, request.prompt_cache_key)
    return "" if keys == (None, None) else json.dumps(keys)


def _echo(request: GenerationRequest, prompt: PromptTokens, tokenizer: Tokenizer) -> Echo | None:
    if not request.echoes:
        return None
    return echo_of(prompt, None if request.echo else request.echo_last, tokenizer)


def _view(request: GenerationRequest) -> View:
    options = request.stream_options
    top = request.top_logprobs
    if top is None:
        top = request.logprobs if type(request.logprobs) is int else 0
    return View(
        logprobs=None if not request.wants_logprobs else "new" if request.logprobs is True else "legacy",
        top_logprobs=top,
        token_ids=bool(request.return_token_ids),
        raw_output=bool(request.raw_output),
        perf_metrics=bool(request.perf_metrics_in_response),
        closing_usage=bool(options is not None and options.include_usage),
    )
