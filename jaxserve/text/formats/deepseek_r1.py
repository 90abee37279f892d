"""DeepSeek R1 and its distillations: reasoning that begins in the prompt, calls with fenced JSON."""

from __future__ import annotations

from jaxserve.text.formats.calls_named import NamedCalls
from jaxserve.text.formats.deepseek_v31 import CALL_CLOSE, CALL_OPEN, CALLS_CLOSE, CALLS_OPEN, SEPARATOR, STOPS
from jaxserve.text.formats.spec import Effort, Format, Thinking

DEEPSEEK_R1 = Format(
    name="deepseek_r1",
    calls=NamedCalls(
        section_open=CALLS_OPEN,
        call_open=f"{CALL_OPEN}function{SEPARATOR}",
        name_close="\n```json\n",
        after_json="\n```",
        call_close=CALL_CLOSE,
        section_close=CALLS_CLOSE,
        between="\n",
        tokens=(CALL_OPEN, SEPARATOR),
    ),
    stops=STOPS,
    thinking=Thinking(),
    effort=Effort(values=("low", "medium", "high"), default="medium", integers="budget"),
    template_marks=(f"{SEPARATOR}", "```json"),
    priority=2,
)
