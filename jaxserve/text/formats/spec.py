"""What a format declares. One value of `Format` describes a model family's output and what its template wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxserve.text.formats.syntax import CallSyntax

HistoryMode = Literal["disabled", "interleaved", "preserved"]
HISTORY_MODES: tuple[HistoryMode, ...] = ("disabled", "interleaved", "preserved")


@dataclass(frozen=True)
class Thinking:
    """How reasoning is marked in the output."""

    open: str = "<think>"
    close: str = "</think>"
    trim: str = "\n"
    """Characters around the reasoning, and between it and the answer, that are layout."""
    before_close: str = "\n"
    after_close: str = "\n\n"
    """Layout that the model writes around `close`; used when a spent budget closes the reasoning for it."""
    ended_by_calls: bool = False
    """Models of this family call tools without closing the reasoning first."""


@dataclass(frozen=True)
class Effort:
    """How `reasoning_effort` works. The default describes a model that doesn't reason."""

    values: tuple[str, ...] = ("none",)
    """Of none, low, medium, high: those accepted."""
    default: str = "none"
    integers: Literal["refused", "ignored", "budget"] = "refused"
    booleans: bool = True
    """Whether true (medium) and false (none) are accepted."""
    budgets: Mapping[str, int] = field(default_factory=dict)
    """Reasoning tokens that a level allows at most."""
    switch: Mapping[str, Any] = field(default_factory=dict)
    """Template arguments when reasoning is off; with every boolean negated, when it is on."""
    level_argument: str = ""
    """Template argument that takes the level."""


@dataclass(frozen=True)
class Handover:
    """What the chat template wants of earlier messages."""

    modes: tuple[HistoryMode, ...] = ("disabled",)
    """`reasoning_history` values that the template can honour; without one, all reasoning is handed over to it."""
    mode_arguments: Mapping[HistoryMode, Mapping[str, Any]] = field(default_factory=dict)
    """Template arguments that a mode, asked for explicitly, needs."""
    arguments: Literal["object", "text", "template"] = "template"
    """Form of a call's arguments; "template" looks at what the template does with them."""
    one_call_each: bool = False
    """The template renders one call of a message only: several become several messages."""
    ids: Literal["any", "indexed", "nine"] = "any"
    """Ids the template shows to the model: as given, `functions.NAME:INDEX`, nine letters and digits."""
    reasoning_key: str = "reasoning_content"


@dataclass(frozen=True)
class Format:
    """A model family's way of writing answers."""

    name: str
    calls: CallSyntax
    stops: tuple[str, ...] = ()
    """Special tokens that end a turn, beside the model's EOS."""
    thinking: Thinking | None = None
    effort: Effort = Effort()
    handover: Handover = Handover()
    call_id_prefix: str = "call_"
    call_id_letters: int = 24
    model_types: tuple[str, ...] = ()
    """`model_type`s of config.json that this format is the usual one of."""
    template_marks: tuple[str, ...] = ()
    """Texts that only chat templates of this format hold, all of them."""
    priority: int = 0
    """Of several formats that match, the highest wins."""
    renderer: Literal["template", "deepseek_v32", "tools_in_system"] = "template"
    """Who writes the prompt: the model's template, an encoder of ours, or the template with tools put into the system
    message."""
    note: str = ""
    """Told to the operator when this format is chosen."""
