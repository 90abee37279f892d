"""A conversation in a terminal: what was said, what is set, and the commands for it. Nothing is printed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jaxserve.cli.calculator import TOOL, calculate
from jaxserve.errors import JaxserveError

MOST_CALLS = 4
"""Rounds of tool calls in a row, before the demo gives up."""


class BadCommand(JaxserveError):
    """A command that there is not, or that lacks something."""


@dataclass(frozen=True)
class Said:
    """What came of the model: a piece of text or reasoning, or a call with its result."""

    text: str = ""
    reasoning: str = ""
    call: str = ""


class Model(Protocol):
    """Whoever answers: a server, or a model in this process."""

    name: str

    def stream(self, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The first choice of each chunk of an answer to fields of a chat request.

        Raises:
            JaxserveError: it was refused, or failed; one sentence.
        """


@dataclass
class Talk:
    """One conversation."""

    model: Model
    system: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the request: temperature, max_tokens ..."""
    schema: dict[str, Any] | None = None
    tools: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, text: str) -> Iterator[Said]:
        """Says something; yields the answer as it comes. One that is left early, or fails, leaves no trace."""
        before = len(self.history)
        self.history.append({"role": "user", "content": text})
        done = False
        try:
            for _ in range(MOST_CALLS):
                message = yield from self._answer()
                self.history.append(message)
                if not message.get("tool_calls"):
                    break
                yield from self._run(message["tool_calls"])
            done = True
        finally:
            if not done:
                del self.history[before:]

    @property
    def body(self) -> dict[str, Any]:
        """The request as it stands."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {"messages": [*system, *self.history], **self.settings}
        if self.schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}
        elif self.tools:
            body["tools"] = [TOOL]
        return body

    def _answer(self) -> Generator[Said, None, dict[str, Any]]:
        """Yields what comes, returns the message."""
        text, calls = "", dict[int, dict[str, Any]]()
        for choice in self.model.stream(self.body):
            delta = choice["delta"]
            text += delta.get("content") or ""
            for piece in delta.get("tool_calls") or ():
                _add(calls, piece)
            said = Said(delta.get("content") or "", delta.get("reasoning_content") or "")
            if said != Said():
                yield said
        message: dict[str, Any] = {"role": "assistant", "content": text}
        return message | ({"tool_calls": list(calls.values())} if calls else {})

    def _run(self, calls: list[dict[str, Any]]) -> Iterator[Said]:
        for call in calls:
            function = call["function"]
            result = calculate(function["arguments"])
            self.history.append({"role": "tool", "tool_call_id": call["id"], "content": result})
            yield Said(call=f"{function['name']}({function['arguments']}) = {result}")

    # ------------------------------------------------------------------ commands

    def command(self, line: str) -> str:
        """Carries out `/name argument`; returns what to tell.

        Raises:
            BadCommand: there is none of this name, or it needs something else.
        """
        name, _, argument = line[1:].partition(" ")
        if name not in _COMMANDS:
            raise BadCommand(f"there is no /{name}; /help lists what there is")
        return _COMMANDS[name][0](self, argument.strip())

    def _help(self, _: str) -> str:
        return "\n".join(f"/{name:8}{text}" for name, (_do, text) in _COMMANDS.items())

    def _set_system(self, text: str) -> str:
        self.system = text
        return f"system prompt: {text}" if text else "no system prompt"

    def _set(self, argument: str) -> str:
        if not argument:
            return (
                "\n".join(f"{name} = {json.dumps(value)}" for name, value in self.settings.items()) or "nothing is set"
            )
        name, _, value = argument.replace("=", " ", 1).partition(" ")
        if not value.strip():
            self.settings.pop(name, None)
            return f"{name} is no longer set"
        self.settings[name] = _value(value.strip())
        return f"{name} = {json.dumps(self.settings[name])}"

    def _set_schema(self, argument: str) -> str:
        if argument in ("", "off"):
            self.schema = None
            return "answers are text"
        try:
            self.schema = json.loads(argument)
        except ValueError as error:
            raise BadCommand(f"/json needs a JSON schema: {error}") from None
        return "answers are JSON of this schema"

    def _set_tools(self, argument: str) -> str:
        self.tools = argument != "off"
        return "the model may use a calculator" if self.tools else "no tools"

    def _new(self, _: str) -> str:
        self.history.clear()
        return "a new conversation"


_COMMANDS: dict[str, tuple[Callable[[Talk, str], str], str]] = {
    "system": (Talk._set_system, "TEXT: the system prompt; empty = none"),
    "set": (
        Talk._set,
        "NAME VALUE: any field of the request (/set temperature 0.2); without a value: unset; alone: show",
    ),
    "json": (Talk._set_schema, "SCHEMA: answers follow this JSON schema; off"),
    "tools": (Talk._set_tools, "on or off: a calculator that the model may call"),
    "new": (Talk._new, "forget the conversation"),
    "help": (Talk._help, "this list"),
    "quit": (lambda talk, _: "", "leave (also Ctrl-D)"),
}


def _add(calls: dict[int, dict[str, Any]], piece: Mapping[str, Any]) -> None:
    call = calls.setdefault(piece["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call["id"] = piece.get("id") or call["id"]
    told = piece.get("function") or {}
    call["function"]["name"] = told.get("name") or call["function"]["name"]
    call["function"]["arguments"] += told.get("arguments") or ""


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
