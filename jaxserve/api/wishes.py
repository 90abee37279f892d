"""What a request wants of its outputs, read once: format, tools, reasoning, and what of them is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxserve.api.schema.extras import AllowedTools
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest
from jaxserve.api.schema.tools import FunctionNameSpec, FunctionSelection
from jaxserve.errors import InvalidRequest
from jaxserve.text.formats import BoundFormat, ReasoningPlan, Tool
from jaxserve.text.formats.reasoning import ThinkingSetting
from jaxserve.text.grammar.wish import OutputWish

LogprobFormat = Literal["legacy", "new"]
StreamUsage = Literal["last chunk", "closing chunk", "none"]


_STREAM_USAGE: Mapping[bool | None, StreamUsage] = {None: "last chunk", True: "closing chunk", False: "none"}
"""By `stream_options.include_usage`."""


@dataclass(frozen=True)
class View:
    """What of the engine's output a response shows."""

    logprobs: LogprobFormat | None = None
    top_logprobs: int = 0
    token_ids: bool = False
    raw_output: bool = False
    perf_metrics: bool = False
    stream_usage: StreamUsage = "last chunk"
    """Where a stream has its `usage`: the closing chunk has no choices."""


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request, and what the model may do with them."""

    shown: tuple[Tool, ...] = ()
    """What the prompt describes; none if `tool_choice` forbids calls."""
    callable: tuple[Tool, ...] = ()
    """What may be called: all of them, or the one that was named."""
    forced: bool = False
    """One must be called."""
    parallel: bool = True
    legacy: bool = False
    """They came as `functions`."""


@dataclass(frozen=True)
class Wishes:
    """Everything a request says about its outputs but how to draw their tokens."""

    output: OutputWish
    """What the grammars enforce."""
    view: View
    tools: ToolUse = ToolUse()
    reasoning: ReasoningPlan = field(default_factory=ReasoningPlan)


def chat_wishes(request: ChatCompletionRequest, bound: BoundFormat) -> Wishes:
    """The wishes of a chat request.

    Raises:
        InvalidRequest: a tool can't be used, a name is unknown, two spellings are mixed, or the model doesn't support
            this reasoning; the message says what it does support.
    """
    tools, reasoning = _tool_use(request), _reasoning(request, bound)
    output = OutputWish(
        _response_format(request),
        tools=tools.callable,
        forced=tools.forced,
        parallel=tools.parallel,
        reasoning=reasoning.enabled,
        budget=reasoning.budget,
        min_tokens=request.min_tokens or 0,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        ignore_eos=request.ignore_eos,
    )
    return Wishes(output, _view(request), tools, reasoning)


def completion_wishes(request: CompletionRequest, bound: BoundFormat) -> Wishes:
    """The wishes of a completions request.

    Raises:
        InvalidRequest: the model doesn't support this `reasoning_effort`.
    """
    budget = _completion_budget(request, bound)
    output = OutputWish(
        _response_format(request),
        budget=budget,
        min_tokens=request.min_tokens or 0,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        chat=False,
        ignore_eos=request.ignore_eos,
    )
    return Wishes(output, _view(request))


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
        stream_usage=_STREAM_USAGE[options.include_usage if options is not None else None],
    )


def _response_format(request: GenerationRequest) -> Mapping[str, Any] | None:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    return {key: value for key, value in wanted.model_dump(by_alias=True).items() if value is not None}


def _tool_use(request: ChatCompletionRequest) -> ToolUse:
    """The request's tools, whichever way they are written."""
    legacy = bool(request.functions)
    given = request.functions if legacy else request.tools
    tools = Tool.parse([entry.model_dump(exclude_unset=True) for entry in given], "functions" if legacy else "tools")
    field, choice = _choice(request)
    if not tools or choice == "none":
        return ToolUse()
    parallel = not legacy and request.parallel_tool_calls is not False
    if isinstance(choice, str):
        return ToolUse(tools, tools, choice in ("any", "required"), parallel, legacy)
    if isinstance(choice, AllowedTools):
        allowed = choice.allowed_tools
        chosen = {one.called: _named(tools, one.called, field) for one in allowed.tools}
        return ToolUse(tools, tuple(chosen.values()), allowed.mode == "required", parallel)
    return ToolUse(tools, (_named(tools, choice.called, field),), forced=True, parallel=False, legacy=legacy)


def _named(tools: tuple[Tool, ...], name: str, field: str) -> Tool:
    for tool in tools:
        if tool.name == name:
            return tool
    raise InvalidRequest(field, f"{field}: there is no tool named {name[:64]!r}")


def _choice(request: ChatCompletionRequest) -> tuple[str, str | FunctionSelection | FunctionNameSpec | AllowedTools]:
    """What says which tools must or may be called, and its field."""
    if request.function_call is not None:
        return "function_call", request.function_call
    return "tool_choice", request.tool_choice


def _reasoning(request: ChatCompletionRequest, bound: BoundFormat) -> ReasoningPlan:
    arguments = request.chat_template_kwargs or {}
    return bound.plan_reasoning(request.reasoning_effort, _thinking(request), request.reasoning_history, arguments)


def _thinking(request: GenerationRequest) -> ThinkingSetting:
    thinking = request.thinking
    return None if thinking is None else (thinking.type, getattr(thinking, "budget_tokens", None))


def _completion_budget(request: CompletionRequest, bound: BoundFormat) -> int | None:
    """Reasoning tokens that a completion may write; None = any number, 0 closes any reasoning at once."""
    if request.reasoning_effort is None and request.thinking is None:
        return None
    plan = bound.plan_reasoning(request.reasoning_effort, _thinking(request))
    rules = bound.format.effort
    if rules.level_argument:
        raise InvalidRequest(
            "reasoning_effort",
            "reasoning_effort: this model's level is part of its chat template; use chat completions",
        )
    if rules.values == ("none",):
        return None
    return plan.budget if plan.enabled else 0
