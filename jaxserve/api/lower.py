"""Schema to engine requests: validation of everything, templates, tokens. What leaves here, the engine trusts.

A straight line: the rules are checked, the wishes read, the prompts made, and each engine request is built once.
Runs in worker threads: templates and tokenizers take milliseconds, which the event loop must not lose.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from jaxserve.api.budgets import token_budgets
from jaxserve.api.conversation import chat_prompt
from jaxserve.api.echo import Echo, echo_of
from jaxserve.api.images import read_images
from jaxserve.api.ports import OutputRules, TextServices
from jaxserve.api.prediction import predicted_tokens
from jaxserve.api.prompt_tokens import PromptTokens
from jaxserve.api.prompts import completion_prompts
from jaxserve.api.rules import check
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, Endpoint, GenerationRequest
from jaxserve.api.settings import ModelInfo, Settings
from jaxserve.api.translation import in_our_words
from jaxserve.api.wishes import View, Wishes, chat_wishes, completion_wishes
from jaxserve.engine.requests import Request
from jaxserve.errors import InvalidRequest
from jaxserve.sampling.params import KNOBS, SamplingParams, check_token_ids
from jaxserve.text.formats import BoundFormat, Tool


@dataclass(frozen=True)
class Parsing:
    """How the text of a chat answer becomes a message."""

    format: BoundFormat
    tools: tuple[Tool, ...] | None
    reasoning_open: bool
    legacy: bool = False
    """A call ends the answer with `function_call` instead of `tool_calls`."""


@dataclass(frozen=True)
class LoweredPrompt:
    """One prompt: the engine's request and what is shown of the prompt."""

    request: Request
    tokens: PromptTokens
    echo: Echo | None
    grammar: str | None = None
    """The grammar that the output follows."""
    relaxed: tuple[tuple[str, str], ...] = ()
    """(tool, what of its schema the grammar leaves to the model)."""
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
    request = in_our_words(request)
    check(request, settings)
    wishes = chat_wishes(request, text.format)
    images = read_images(request, text, settings.limits)
    prompt = chat_prompt(request, wishes, text, images, settings.model.context_length)
    return _job(request, wishes, [prompt], text, settings)


def lower_completion(request: CompletionRequest, text: TextServices, settings: Settings) -> Job:
    """Lowers a completions request, which may hold several prompts.

    Raises:
        UnknownModel: the request names another model.
        InvalidRequest: something in it can't be honoured; its subclasses tell what only the model can know.
    """
    request = in_our_words(request)
    check(request, settings)
    wishes = completion_wishes(request, text.format)
    images = read_images(request, text, settings.limits)
    prompts = completion_prompts(request, text, images, settings.model.vocab_size, settings.model.context_length)
    return _job(request, wishes, prompts, text, settings)


def _job(
    request: GenerationRequest, wishes: Wishes, prompts: list[PromptTokens], text: TextServices, settings: Settings
) -> Job:
    job_id = ("chatcmpl-" if request.endpoint == "chat" else "cmpl-") + secrets.token_hex(16)
    budgets = token_budgets(request, prompts, settings)
    sampling = _sampling(_with_defaults(request, settings.model), settings.model.vocab_size)
    prediction = predicted_tokens(request, text.tokenizer, settings.model)
    lowered = []
    for index, (prompt, max_tokens) in enumerate(zip(prompts, budgets, strict=True)):
        rules, parsing = _output_rules(wishes, prompt, text), _parsing(wishes, prompt, text.format)
        echo = _echo(request, prompt, text)
        scored = wishes.view.logprobs is not None and echo is not None and echo.first < len(prompt.ids)
        engine_request = Request(
            id=f"{job_id}-{index}",
            prompt=prompt.ids,
            images=prompt.images,
            sampling=sampling,
            max_tokens=max_tokens,
            n=request.n,
            stop=_stop_texts(request),
            stop_token_ids=_stop_ids(request, rules, parsing, text),
            logprobs=wishes.view.top_logprobs if wishes.view.logprobs is not None else None,
            prompt_logprobs_from=echo.first if scored and echo is not None else None,
            cache_key=_cache_key(request),
            cache_max_len=request.prompt_cache_max_len,
            # The markers of calls and reasoning are special tokens in most models; the parser takes them out.
            skip_special_tokens=parsing is None,
            constraint=rules.make if rules is not None else None,
            prediction=prediction,
            priority=request.service_tier == "priority",
            want_activations=bool(request.return_last_activation),
            want_routing=bool(request.include_routing_matrix),
        )
        grammar = rules.grammar if rules is not None else None
        relaxed = rules.relaxed if rules is not None else ()
        lowered.append(LoweredPrompt(engine_request, prompt, echo, grammar, relaxed, parsing))
    return Job(request.endpoint, tuple(lowered), wishes.view, bool(request.stream), job_id)


def _output_rules(wishes: Wishes, prompt: PromptTokens, text: TextServices) -> OutputRules | None:
    """What the outputs of a prompt must follow; None when any token goes."""
    output = wishes.output
    asked = (output.response_format and "response_format") or (output.tools and "tools")
    field = asked or (output.budget is not None and "reasoning_effort") or (output.min_tokens and "min_tokens")
    if not field:
        return None
    if text.constraints is None:
        raise InvalidRequest(field, f"{field}: not available, this model has no end-of-sequence token")
    return text.constraints.build(output, prompt.text)


def _parsing(wishes: Wishes, prompt: PromptTokens, bound: BoundFormat) -> Parsing | None:
    """How to read the answer; None leaves it as it is.

    A model whose way of writing is unknown is not read for reasoning: its text is shown as it is.
    """
    tools = wishes.tools.shown or None
    if not wishes.output.chat or (bound.name == "generic" and tools is None):
        return None
    return Parsing(bound, tools, bound.prompt_opens_reasoning(prompt.text or ""), wishes.tools.legacy)


def _echo(request: GenerationRequest, prompt: PromptTokens, text: TextServices) -> Echo | None:
    if not request.echoes:
        return None
    return echo_of(prompt.ids, None if request.echo else request.echo_last, text.tokenizer)


def _stop_texts(request: GenerationRequest) -> tuple[str, ...]:
    stops = (request.stop,) if isinstance(request.stop, str) else request.stop or ()
    return tuple(dict.fromkeys(stops))


def _stop_ids(
    request: GenerationRequest, rules: OutputRules | None, parsing: Parsing | None, text: TextServices
) -> tuple[int, ...]:
    """Tokens that end the output: the model's, unless the request ignores them, and those that a grammar needs.

    A stop text that is a special token ends it as that token where special tokens are not part of the text.
    """
    named = [text.tokenizer.id_of(stop) for stop in _stop_texts(request)] if parsing is None else []
    ids = [id_ for id_ in named if id_ is not None and text.tokenizer.is_special(id_)]
    ids += request.stop_token_ids or ()
    if not request.ignore_eos:
        ids += [*text.tokenizer.eos_ids, *(sorted(parsing.format.stop_ids) if parsing is not None else ())]
    return tuple(dict.fromkeys([*ids, *(rules.stop_ids if rules is not None else ())]))


def _sampling(request: GenerationRequest, vocab_size: int) -> SamplingParams:
    given = {name: value for name in KNOBS if (value := getattr(request, name)) is not None}
    seed = given.get("seed", secrets.randbits(64))
    given |= {"seed": (seed + 2**63) % 2**64 - 2**63, "logit_bias": _logit_bias(request)}
    params = SamplingParams(**given)
    check_token_ids(params, vocab_size)
    return params


def _logit_bias(request: GenerationRequest) -> tuple[tuple[int, float], ...]:
    biases = request.logit_bias or {}
    for key in biases:
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise InvalidRequest("logit_bias", f"logit_bias: {key[:20]!r} is not a token id")
    return tuple((int(key), bias) for key, bias in biases.items())


def _with_defaults(request: GenerationRequest, model: ModelInfo) -> GenerationRequest:
    """The request with the model's own values for the knobs that it leaves open."""
    silent = {name: value for name, value in model.sampling_defaults.items() if getattr(request, name) is None}
    return request.model_copy(update=silent)


def _cache_key(request: GenerationRequest) -> str:
    keys = (request.prompt_cache_isolation_key, request.prompt_cache_key)
    return "" if keys == (None, None) else json.dumps(keys)
