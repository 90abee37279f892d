"""MiniMax M2: calls as `invoke` and `parameter` tags; the prompt always opens the reasoning."""

from __future__ import annotations

from jaxserve.text.formats.calls_tagged import TaggedCalls
from jaxserve.text.formats.spec import Effort, Format, Handover, Thinking

MINIMAX_M2 = Format(
    name="minimax_m2",
    calls=TaggedCalls(
        section_open="<minimax:tool_call>",
        after_section_open="\n",
        call_open='<invoke name="',
        name_close='">',
        after_name="\n",
        key_open='<parameter name="',
        key_close='">',
        value_close="</parameter>",
        after_value="\n",
        call_close="</invoke>",
        after_call="\n",
        section_close="</minimax:tool_call>",
    ),
    stops=("[e~[",),
    thinking=Thinking(),
    effort=Effort(values=("low", "medium", "high"), default="medium", booleans=False),
    handover=Handover(modes=("disabled", "interleaved"), arguments="object"),
    model_types=("minimax_m2",),
    template_marks=("minimax:tool_call",),
    priority=1,
)
