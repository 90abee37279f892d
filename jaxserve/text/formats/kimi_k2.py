"""Kimi K2: calls between special tokens, named `functions.NAME:INDEX`, which is also their id."""

from __future__ import annotations

from jaxserve.text.formats.calls_named import NamedCalls
from jaxserve.text.formats.spec import HISTORY_MODES, Effort, Format, Handover, Thinking

_CALLS = NamedCalls(
    section_open="<|tool_calls_section_begin|>",
    call_open="<|tool_call_begin|>",
    indexed=True,
    name_close="<|tool_call_argument_begin|>",
    call_close="<|tool_call_end|>",
    section_close="<|tool_calls_section_end|>",
)
_STOPS = ("<|im_end|>", "[EOS]")
_HANDOVER = Handover(modes=HISTORY_MODES, ids="indexed")

KIMI_K2 = Format(
    name="kimi_k2",
    calls=_CALLS,
    stops=_STOPS,
    thinking=Thinking(trim="", before_close="", after_close="", ended_by_calls=True),
    handover=_HANDOVER,
    model_types=("kimi_k2",),
    template_marks=("<|tool_calls_section_begin|>",),
    priority=1,
)
KIMI_K2_THINKING = Format(
    name="kimi_k2_thinking",
    calls=_CALLS,
    stops=_STOPS,
    thinking=Thinking(trim="", before_close="", after_close="", ended_by_calls=True),
    effort=Effort(values=("low", "medium", "high"), default="medium", integers="budget"),
    handover=_HANDOVER,
    template_marks=("<|tool_calls_section_begin|>", "<think>"),
    priority=2,
)
