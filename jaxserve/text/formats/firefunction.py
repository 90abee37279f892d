"""Firefunction v2: ` functools[{"name": ..., "arguments": {...}}]`."""

from __future__ import annotations

from jaxserve.text.formats.calls_json import JsonCalls
from jaxserve.text.formats.llama3 import STOPS
from jaxserve.text.formats.spec import Format, Handover

FIREFUNCTION = Format(
    name="firefunction",
    calls=JsonCalls(open=" functools[", other_opens=("functools[",), array=True, between=", "),
    stops=STOPS,
    handover=Handover(arguments="object"),
    template_marks=("functools[",),
    priority=3,
)
