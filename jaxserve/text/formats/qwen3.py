"""Qwen3, and the Hermes form of tool calls that it shares with Qwen2.5 and the Hermes models."""

from __future__ import annotations

from jaxserve.text.formats.calls_json import JsonCalls
from jaxserve.text.formats.spec import Effort, Format, Handover, Thinking

HERMES_CALLS = JsonCalls(open="<tool_call>", close="</tool_call>", lead="\n", trail="\n", between="\n")
STOPS = ("<|im_end|>", "<|endoftext|>")

QWEN3 = Format(
    name="qwen3",
    calls=HERMES_CALLS,
    stops=STOPS,
    thinking=Thinking(ended_by_calls=True),
    effort=Effort(
        values=("none", "low", "medium", "high"),
        default="medium",
        integers="budget",
        budgets={"low": 3000},
        switch={"enable_thinking": False},
    ),
    handover=Handover(modes=("disabled", "interleaved")),
    model_types=("qwen3", "qwen3_moe", "qwen3_next"),
    template_marks=("<tool_call>", "<think>", '"arguments"'),
    priority=1,
)
HERMES = Format(
    name="hermes",
    calls=HERMES_CALLS,
    stops=STOPS,
    model_types=("qwen2", "qwen2_moe"),
    template_marks=("<tool_call>", '"arguments"'),
)
