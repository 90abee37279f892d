"""Qwen3-Coder and Qwen3.5: calls as tags, each value on lines of its own."""

from __future__ import annotations

from jaxserve.text.formats.calls_tagged import TaggedCalls
from jaxserve.text.formats.qwen3 import QWEN3, STOPS
from jaxserve.text.formats.spec import Format, Handover, Thinking

CALLS = TaggedCalls(
    section_open="<tool_call>",
    before_call="\n",
    call_open="<function=",
    name_close=">",
    after_name="\n",
    key_open="<parameter=",
    key_close=">",
    value_close="</parameter>",
    after_value="\n",
    call_close="</function>",
    after_call="\n",
    section_close="</tool_call>",
    between="\n",
    own_section=True,
    trim_value=True,
)
QWEN3_CODER = Format(
    name="qwen3_coder",
    calls=CALLS,
    stops=STOPS,
    handover=Handover(arguments="object"),
    template_marks=("<function=", "<parameter="),
    priority=2,
)
QWEN3_5 = Format(
    name="qwen3_5",
    calls=CALLS,
    stops=STOPS,
    thinking=Thinking(ended_by_calls=True),
    effort=QWEN3.effort,
    handover=Handover(modes=("disabled", "interleaved"), arguments="object"),
    model_types=("qwen3_5", "qwen3_5_moe"),
    template_marks=("<function=", "<parameter=", "<think>"),
    priority=3,
)
