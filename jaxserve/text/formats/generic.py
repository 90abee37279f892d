"""Models of no known format: tools are explained in the system message, calls are JSON between tags."""

from __future__ import annotations

from jaxserve.text.formats.qwen3 import HERMES_CALLS
from jaxserve.text.formats.spec import Effort, Format, Handover, Thinking

GENERIC = Format(
    name="generic",
    calls=HERMES_CALLS,
    thinking=Thinking(trim="\n", after_close=""),
    effort=Effort(values=("none",), default="none"),
    handover=Handover(arguments="object"),
    renderer="tools_in_system",
    note="no tool format is known for this model; tools work through a generic JSON format explained in the prompt",
)
