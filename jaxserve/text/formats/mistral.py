"""Mistral: `[TOOL_CALLS]` and an array of objects; later tokenizers write `[TOOL_CALLS]name[ARGS]{...}`."""

from __future__ import annotations

from jaxserve.text.formats.calls_json import JsonCalls
from jaxserve.text.formats.calls_named import NamedCalls
from jaxserve.text.formats.spec import Format, Handover

_NAMED = NamedCalls(call_open="[TOOL_CALLS]", name_close="[ARGS]", id_marker="[CALL_ID]")
_HANDOVER = Handover(ids="nine")

MISTRAL = Format(
    name="mistral",
    calls=JsonCalls(open="[TOOL_CALLS]", array=True, between=", ", id_letters=9, instead=_NAMED),
    stops=("</s>",),
    handover=_HANDOVER,
    call_id_prefix="",
    call_id_letters=9,
    model_types=("mistral", "mixtral"),
    template_marks=("[TOOL_CALLS]",),
    priority=1,
)
MISTRAL_NAMED = Format(
    name="mistral_named",
    calls=_NAMED,
    stops=("</s>",),
    handover=_HANDOVER,
    call_id_prefix="",
    call_id_letters=9,
    model_types=("mistral3", "ministral3"),
    template_marks=("[TOOL_CALLS]", "[ARGS]"),
    priority=2,
)
