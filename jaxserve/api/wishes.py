"""What the outputs of a request must look like: response formats, tools and reasoning, for the engine and for lift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxserve.api.ports import Constrained, TextServices
from jaxserve.api.prompts import PromptTokens
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest
from jaxserve.api.schema.tools import FunctionNameSpec, FunctionSelection, ThinkingConfigEnabled
from jaxserve.engine.requests import Request
from jaxserve.errors import InvalidRequest
from jaxserve.text.formats import BoundFormat, ReasoningPlan, Tool, ToolChoice


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request, and what the model may do with them."""

    tools: tuple[Tool, ...] = ()
    """None if `tool_choice` forbids calls."""
    choice: ToolChoice = "auto"
    parallel: bool = True
    legacy: bool = False
    """They came as `functions`."""


@dataclass(frozen=True)
class Parsing:
    """How the text of a chat answer becomes a message."""

    format: BoundFormat
    tools: tuple[Tool, ...] | None
    reasoning_open: bool
    legacy: bool = False
    """A call ends the answer with `function_call` instead of `tool_calls`."""


def tool_use(request: ChatCompletionRequest) -> ToolUse:
    """The request's tools, whichever way they are written.

    Raises:
        InvalidRequest: a tool can't be used, a name is unknown, or two spellings are mixed.
    """
    if request.tools and request.functions:
        raise InvalidRequest("functions", "functions can't be given together with tools")
    choice_field, wanted = "tool_choice", request.tool_choice
    chosen = _choice(wanted)
    if request.function_call is not None and (request.tools or request.functions):
        if request.tool_choice != "auto":
            raise InvalidRequest("function_call", "function_call can't be given together with tool_choice")
        choice_field, called = "function_call", request.function_call
        chosen = ("named", called.name) if isinstance(called, FunctionNameSpec) else called
    given = request.tools or request.functions
    field = "tools" if request.tools else "functions"
    tools = Tool.parse([entry.model_dump(exclude_unset=True) for entry in given], field)
    if not tools or chosen == "none":
        return ToolUse()
    if isinstance(chosen, tuple) and chosen[1] not in [tool.name for tool in tools]:
        raise InvalidRequest(choice_field, f"{choice_field}: there is no tool named {chosen[1][:64]!r}")
    legacy = bool(request.functions)
    return ToolUse(tools, chosen, not legacy and request.parallel_tool_calls is not False, legacy)


def _choice(wanted: Literal["auto", "none", "any", "required"] | FunctionSelection) -> ToolChoice:
    if isinstance(wanted, FunctionSelection):
        return ("named", wanted.name or (wanted.function.name if wanted.function is not None else ""))
    return "required" if wanted == "any" else wanted


def reasoning_plan(request: ChatCompletionRequest, bound: BoundFormat) -> ReasoningPlan:
    """What `reasoning_effort`, `thinking` and `reasoning_history` come to for this model.

    Raises:
        InvalidRequest: the model doesn't support one of them; the message says what it does support.
    """
    thinking = request.thinking
    if thinking is None:
        return bound.plan_reasoning(request.reasoning_effort, None, request.reasoning_history)
    budget = thinking.budget_tokens if isinstance(thinking, ThinkingConfigEnabled) else None
    return bound.plan_reasoning(None, (thinking.type, budget), request.reasoning_history)


def completion_budget(request: CompletionRequest, bound: BoundFormat) -> int | None:
    """Reasoning tokens that a completion may write; None = any number, 0 closes any reasoning at once.

    Raises:
        InvalidRequest: the model doesn't support this `reasoning_effort`.
    """
    if request.reasoning_effort is None:
        return None
    plan = bound.plan_reasoning(request.reasoning_effort)
    rules = bound.format.effort
    if rules.level_argument:
        raise InvalidRequest(
            "reasoning_effort",
            "reasoning_effort: this model's level is part of its chat template; use chat completions",
        )
    if rules.values == ("none",):
        return None
    return plan.budget if plan.enabled else 0


def parsing(bound: BoundFormat, plan: ReasoningPlan, use: ToolUse, prompt: PromptTokens) -> Parsing | None:
    """How to read the answer; None leaves it as it is.

    A model whose way of writing is unknown is not read for reasoning: its text is shown as it is.
    """
    if bound.name == "generic" and not use.tools:
        return None
    opened = bound.prompt_opens_reasoning(prompt.text or "")
    return Parsing(bound, use.tools or None, opened, use.legacy)


def constrain(
    request: GenerationRequest,
    prompts: Sequence[PromptTokens],
    text: TextServices,
    *,
    use: ToolUse | None = None,
    reasoning: bool = False,
    budget: int | None = None,
) -> list[Constrained | None]:
    """The constraint of each prompt's outputs.

    Raises:
        InvalidRequest: a schema, grammar or tool can't be honoured; names the field and what is wrong.
    """
    use = use or ToolUse()
    wanted = request.response_format
    response_format = None
    if wanted is not None and wanted.type != "text":
        response_format = {key: value for key, value in wanted.model_dump(by_alias=True).items() if value is not None}
    if response_format is None and not use.tools and budget is None:
        return [None] * len(prompts)
    if text.constraints is None:
        field = "response_format" if response_format else "tools" if use.tools else "reasoning_effort"
        raise InvalidRequest(field, f"{field}: not available, this model has no end-of-sequence token")
    return [
        text.constraints.build(
            response_format,
            tools=use.tools,
            tool_choice=use.choice,
            parallel_tool_calls=use.parallel,
            reasoning=reasoning,
            budget=budget,
            prompt=prompt.text,
            chat=isinstance(request, ChatCompletionRequest),
            ignore_eos=request.ignore_eos,
        )
        for prompt in prompts
    ]


def follow(request: Request, constrained: Constrained | None, reading: Parsing | None, *, ignore_eos: bool) -> Request:
    """The engine's request, constrained, and ended by the format's stop tokens."""
    stops = list(request.stop_token_ids)
    if reading is not None:
        # The markers of calls and reasoning are special tokens in most models; the parser takes them out.
        request = replace(request, skip_special_tokens=False)
        stops += [] if ignore_eos else sorted(reading.format.stop_ids)
    if constrained is not None:
        request = replace(request, constraint=constrained.make)
        stops += constrained.stop_ids
    return replace(request, stop_token_ids=tuple(dict.fromkeys(stops)))
