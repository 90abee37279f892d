"""Tools as the model may call them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxserve.errors import InvalidRequest

MAX_TOOLS = 512
"""More are refused: their grammar would take seconds to compile."""
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Tool:
    """One function the model may call."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(_NO_PARAMETERS))
    """JSON Schema of its arguments, an object schema."""
    strict: bool = False
    description: str | None = None
    place: str = "tools"
    """The request field that holds it, for error messages."""

    @property
    def properties(self) -> Mapping[str, Any]:
        """Schemas of the named parameters."""
        properties = self.parameters.get("properties")
        return properties if isinstance(properties, Mapping) else {}

    def for_template(self) -> dict[str, Any]:
        """The tool as chat templates read it."""
        about = {"description": self.description} if self.description is not None else {}
        return {
            "type": "function",
            "function": {"name": self.name, **about, "parameters": dict(self.parameters)},
        }

    @staticmethod
    def parse(tools: Sequence[Mapping[str, Any]], field: str = "tools") -> tuple[Tool, ...]:
        """Tools from OpenAI's form: {"type": "function", "function": {...}}, or the bare functions of `functions`.

        Raises:
            InvalidRequest: too many, a name twice, or parameters that are not an object schema.
        """
        if len(tools) > MAX_TOOLS:
            raise InvalidRequest(field, f"{field}: {len(tools)} tools; this server takes {MAX_TOOLS} at most")
        parsed: dict[str, Tool] = {}
        for index, entry in enumerate(tools):
            tool = _parse(entry, f"{field}.{index}")
            if tool.name in parsed:
                raise InvalidRequest(tool.place, f"{tool.place}: the name {tool.name!r} is given twice")
            parsed[tool.name] = tool
        return tuple(parsed.values())


def _parse(entry: Mapping[str, Any], place: str) -> Tool:
    function = entry.get("function")
    if isinstance(function, Mapping):
        place = f"{place}.function"
    else:
        function = entry
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidRequest(f"{place}.name", f"{place}.name: needs 1 to 64 letters, digits, '_', '-' or '.'")
    parameters = function.get("parameters") or _NO_PARAMETERS
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise InvalidRequest(
            f"{place}.parameters",
            f"{place}.parameters: must be a JSON Schema of type 'object' (a tool has named parameters)",
        )
    return Tool(name, dict(parameters), bool(function.get("strict")), function.get("description"), place)


def find_tool(tools: Sequence[Tool], name: str) -> Tool | None:
    """The tool of a name."""
    return next((tool for tool in tools if tool.name == name), None)
