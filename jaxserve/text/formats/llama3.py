"""Llama 3.1 to 3.3: a bare JSON object with `parameters`; and the pythonic lists of Llama 3.2 and 4."""

from __future__ import annotations

from jaxserve.text.formats.calls_json import JsonCalls
from jaxserve.text.formats.calls_pythonic import PythonicCalls
from jaxserve.text.formats.spec import Format, Handover

STOPS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
_HANDOVER = Handover(arguments="object", one_call_each=True)

LLAMA3 = Format(
    name="llama3",
    calls=JsonCalls(
        open="",
        between="; ",
        bare_opens=('{"name"', '{"type"', '{"function"', '{ "name"', "{\n"),
        arguments_key="parameters",
    ),
    stops=STOPS,
    handover=_HANDOVER,
    template_marks=("<|start_header_id|>", '"parameters": '),
    priority=1,
)
LLAMA3_PYTHONIC = Format(
    name="llama3_pythonic",
    calls=PythonicCalls(marker="<|python_tag|>"),
    stops=STOPS,
    handover=_HANDOVER,
    model_types=("llama4",),
    template_marks=("<|start_header_id|>", "func_name1(params_name1"),
    priority=2,
)
