"""GLM 4.5, 4.5 Air and 4.6: calls as key and value tags on lines of their own."""

from __future__ import annotations

from jaxserve.text.formats.calls_tagged import TaggedCalls
from jaxserve.text.formats.spec import Effort, Format, Handover, Thinking

STOPS = ("<|user|>", "<|observation|>", "<|endoftext|>")
SWITCHABLE = Effort(
    values=("none", "low", "medium", "high"), default="medium", integers="ignored", switch={"enable_thinking": False}
)

GLM45 = Format(
    name="glm45",
    calls=TaggedCalls(
        call_open="<tool_call>",
        name_close="",
        after_name="\n",
        key_open="<arg_key>",
        key_close="</arg_key>",
        after_key="\n",
        value_open="<arg_value>",
        value_close="</arg_value>",
        after_value="\n",
        call_close="</tool_call>",
        between="\n",
    ),
    stops=STOPS,
    thinking=Thinking(before_close="", after_close="\n"),
    effort=SWITCHABLE,
    handover=Handover(modes=("disabled", "interleaved"), arguments="object"),
    model_types=("glm4_moe", "glm4_moe_lite"),
    template_marks=("<arg_key>",),
    priority=1,
)
