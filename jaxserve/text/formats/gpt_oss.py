"""GPT-OSS: the harmony format."""

from __future__ import annotations

from jaxserve.text.formats.calls_harmony import CALL, RETURN, HarmonyCalls
from jaxserve.text.formats.spec import Effort, Format, Handover

GPT_OSS = Format(
    name="gpt_oss",
    calls=HarmonyCalls(),
    stops=(RETURN, CALL),
    effort=Effort(values=("low", "medium", "high"), default="medium", booleans=True, level_argument="reasoning_effort"),
    handover=Handover(
        modes=("disabled", "interleaved"),
        arguments="object",
        one_call_each=True,
        reasoning_key="thinking",
    ),
    model_types=("gpt_oss",),
    template_marks=("<|channel|>", "<|message|>"),
    priority=3,
)
