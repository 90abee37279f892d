"""GLM 4.7: as GLM 4.5 without line breaks; the prompt opens the reasoning, and earlier reasoning can be kept."""

from __future__ import annotations

from jaxserve.text.formats.calls_tagged import TaggedCalls
from jaxserve.text.formats.glm45 import STOPS, SWITCHABLE
from jaxserve.text.formats.spec import HISTORY_MODES, Format, Handover, Thinking

GLM47 = Format(
    name="glm47",
    calls=TaggedCalls(
        call_open="<tool_call>",
        name_close="",
        key_open="<arg_key>",
        key_close="</arg_key>",
        value_open="<arg_value>",
        value_close="</arg_value>",
        call_close="</tool_call>",
    ),
    stops=STOPS,
    thinking=Thinking(before_close="", after_close=""),
    effort=SWITCHABLE,
    handover=Handover(
        modes=HISTORY_MODES,
        mode_arguments={"preserved": {"clear_thinking": False}},
        arguments="object",
    ),
    template_marks=("<arg_key>", "clear_thinking"),
    priority=2,
)
