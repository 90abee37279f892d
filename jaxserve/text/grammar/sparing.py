"""Tools whose schemas cost more than a worker may use: they are left to the model, the others are not.

A worker that is ended says nothing of which tool it was, so each is tried alone.
"""

from __future__ import annotations

from dataclasses import replace

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.tools import Tool
from jaxserve.text.grammar.trial import Trials
from jaxserve.text.grammar.writing import Content, Written, freed
from jaxserve.text.isolation import Overrun

MAX_OVERRUNS = 3
"""Tools of one request that may cost a worker its life; further ones are not tried."""
UNTRIED = "others of the request cost too much"


def write_sparing(trials: Trials, content: Content) -> Written:
    """A grammar that compiles.

    Raises:
        InvalidRequest: there is none.
        Overrun: a limit ended the work, and it is no fault of a tool that may be left to the model.
        Overloaded: too much of it waits.
        EngineStopped: the server is shutting down.
    """
    try:
        return trials.write(content)
    except Overrun:
        if all(tool.strict for tool in content.tools):
            raise
    costly = _costly(trials, content)
    if not costly:  # each alone is possible, together they are too much
        costly = {tool.name: "all of it" for tool in content.tools if not tool.strict}
    tools = tuple(freed(tool) if tool.name in costly else tool for tool in content.tools)
    written = trials.write(replace(content, tools=tools))
    return replace(written, relaxed=(*written.relaxed, *costly.items()))


def _costly(trials: Trials, content: Content) -> dict[str, str]:
    """Tools that cost too much, and why."""
    found: dict[str, str] = {}
    for tool in content.tools:
        if len(found) >= MAX_OVERRUNS:
            found |= {} if tool.strict else {tool.name: UNTRIED}
            continue
        try:
            _try(trials, content, tool)
        except Overrun as overrun:
            if tool.strict:
                place = f"{tool.place}.parameters"
                raise InvalidRequest(place, f"{place}: the tool {tool.name!r} is strict: {overrun}") from None
            found[tool.name] = str(overrun)
    return found


def _try(trials: Trials, content: Content, tool: Tool) -> None:
    try:
        trials.write(replace(content, response=None, tools=(tool,), forced=True))
    except InvalidRequest:
        return  # the worker that writes all of them finds it as well, and says what to do
