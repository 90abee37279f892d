"""DeepSeek V3 and V3.1: calls between special tokens, the name and the JSON set apart by one."""

from __future__ import annotations

from jaxserve.text.formats.calls_named import NamedCalls
from jaxserve.text.formats.spec import Effort, Format, Thinking

CALLS_OPEN, CALLS_CLOSE = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_OPEN, CALL_CLOSE = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
STOPS = ("<｜end▁of▁sentence｜>",)
SWITCHABLE = Effort(
    values=("none", "low", "medium", "high"), default="medium", integers="ignored", switch={"thinking": False}
)

DEEPSEEK_V31 = Format(
    name="deepseek_v31",
    calls=NamedCalls(
        section_open=CALLS_OPEN,
        call_open=CALL_OPEN,
        name_close=SEPARATOR,
        call_close=CALL_CLOSE,
        section_close=CALLS_CLOSE,
    ),
    stops=STOPS,
    thinking=Thinking(trim="", before_close="", after_close=""),
    effort=SWITCHABLE,
    model_types=("deepseek_v3",),
    template_marks=(CALLS_OPEN, SEPARATOR),
    priority=1,
)
