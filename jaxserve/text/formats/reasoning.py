"""`reasoning_effort`, `thinking` and `reasoning_history` by the rules of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.spec import HISTORY_MODES, Format, HistoryMode

ThinkingSetting = tuple[str, int | None] | None
"""("enabled", budget or None), ("disabled", None), or None when the request has none."""


@dataclass(frozen=True)
class ReasoningPlan:
    """What a request's reasoning comes to."""

    enabled: bool = False
    """Whether the model may reason."""
    budget: int | None = None
    """Reasoning tokens at most; the close marker is forced after them."""
    template_args: Mapping[str, Any] = field(default_factory=dict)
    history: HistoryMode | None = None
    """Which earlier reasoning stays in the messages; None = the template decides."""


def plan_reasoning(
    format: Format,  # noqa: A002
    effort: str | int | bool | None,
    thinking: ThinkingSetting = None,
    history: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> ReasoningPlan:
    """Applies the model's rules.

    Args:
        format: of the model.
        effort: level, reasoning tokens, or whether to reason at all; None = the model's default.
        thinking: the same in another form.
        history: which earlier reasoning the model sees.
        arguments: variables of the chat template; those that the rules set are read as settings.

    Raises:
        InvalidRequest: several settings are given, or one that the model doesn't support; the message says which it
            does.
    """
    name, asked = "reasoning_effort", effort
    said, others = _setting_in(format, arguments or {})
    if said is not None:
        name, asked = "chat_template_kwargs", said
        if effort is not None or thinking is not None:
            raise InvalidRequest(name, f"{name}: reasoning is set by reasoning_effort or thinking already")
    if thinking is not None:
        if effort is not None:
            raise InvalidRequest("thinking", "thinking: can't be given together with reasoning_effort")
        kind, budget = thinking
        name = "thinking"
        asked = "none" if kind == "disabled" else True if budget is None else budget
    level, budget = _level(format, name, asked)
    mode, of_mode = _history(format, history)
    enabled = level != "none"
    rules = format.effort
    template_args = {key: not off if enabled else off for key, off in rules.switch.items()} | dict(of_mode) | others
    if rules.level_argument and enabled:
        template_args[rules.level_argument] = level
    return ReasoningPlan(enabled, budget, template_args, mode)


def _setting_in(
    format: Format,  # noqa: A002
    arguments: Mapping[str, Any],
) -> tuple[str | bool | None, dict[str, Any]]:
    """What template variables say of the reasoning (None: nothing), and the others."""
    rules, others = format.effort, dict(arguments)
    level = others.pop(rules.level_argument, None) if rules.level_argument else None
    switches = [others.pop(key) != off for key, off in rules.switch.items() if key in others]
    if switches:
        level = any(switches) if level is None or not any(switches) else level
    return level, others


def _level(format: Format, name: str, asked: str | int | bool | None) -> tuple[str, int | None]:  # noqa: A002
    """The level, and the budget if one is asked for."""
    rules = format.effort
    if asked is None:
        return rules.default, rules.budgets.get(rules.default)
    if isinstance(asked, bool):
        level = "medium" if asked else "none"
        if not rules.booleans or level not in rules.values:
            raise _refused(format, name, level if rules.booleans else str(asked).lower())
        return level, None
    if isinstance(asked, int):
        if rules.integers == "refused":
            raise _refused(format, name, str(asked))
        if asked < 1:
            raise InvalidRequest(name, f"{name}: must be at least 1")
        return "medium", asked if rules.integers == "budget" else None
    level = _nearest(rules.values, asked)
    if level not in rules.values:
        raise _refused(format, name, asked)
    return level, rules.budgets.get(level)


def _nearest(values: tuple[str, ...], asked: str) -> str:
    """The level that a name stands for which no model has; others as they are.

    Whoever wants the least reasoning may get none; whoever wants the most does not.
    """
    if asked == "minimal":
        return next((level for level in ("low", "none", "medium", "high") if level in values), asked)
    if asked in ("xhigh", "max"):
        return next((level for level in ("high", "medium", "low") if level in values), asked)
    return asked


def _refused(format: Format, name: str, value: str) -> InvalidRequest:  # noqa: A002
    rules = format.effort
    supported = ", ".join(f"'{value}'" for value in rules.values)
    more = " or a number of tokens" if rules.integers != "refused" else ""
    if rules.values == ("none",):
        supported += " (it does not reason)"
    return InvalidRequest(name, f"Invalid reasoning effort: {value}. This model supports {supported}{more}")


def _history(format: Format, asked: str | None) -> tuple[HistoryMode | None, Mapping[str, Any]]:  # noqa: A002
    if asked is None:
        return None, {}
    for mode in HISTORY_MODES:
        if mode == asked and mode in format.handover.modes:
            return mode, format.handover.mode_arguments.get(mode, {})
    supported = ", ".join(f"'{mode}'" for mode in format.handover.modes)
    raise InvalidRequest(
        "reasoning_history", f"reasoning_history: {asked!r} is not supported by this model, which supports {supported}"
    )
