"""Conversations and tools in other words, for templates that refuse the first ones.

What OpenAI's form allows, some templates fail on: Gemma 2 knows no system message, Hermes 3 needs a description of
every tool and recurses for ever over a `null` type, several want a call's arguments as an object even where a call was
cut and has none, MiniMax's show only one of two system messages. Each step says the same in a form that asks less of
the template; one that takes the first form never sees another, and where none helps the first refusal is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pydantic_core

from jaxserve.errors import TemplateError
from jaxserve.text.chat import Message, Renderer, TemplateStopped

_Tools = Sequence[Mapping[str, Any]] | None


class NeutralForms:
    """Wraps a renderer: what it refuses is handed to it again in plainer forms. Stateless."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: _Tools = None,
        add_generation_prompt: bool = True,
        **template_args: Any,
    ) -> str:
        """See `ChatTemplate.render`."""
        refusal: TemplateError | None = None
        for plainer, shown in _forms(messages, tools):
            try:
                text = self._renderer.render(
                    plainer, tools=shown, add_generation_prompt=add_generation_prompt, **template_args
                )
                if plainer is not messages or not _loses_system_text(messages, text):
                    return text
            except TemplateStopped:
                raise
            except TemplateError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return text


def _forms(messages: Sequence[Message], tools: _Tools) -> Iterator[tuple[Sequence[Message], _Tools]]:
    """The conversation as it is, then each step's change on top of those before, where it changes something."""
    yield messages, tools
    for step in (_described, _without_null_types):
        plainer = [_function(tool, step(tool["function"])) for tool in tools or ()]
        if plainer != list(tools or ()):
            tools = plainer
            yield messages, tools
    for rewrite in (_arguments_as_objects, _one_system_message, _system_in_user_message):
        rewritten = rewrite(messages)
        if rewritten != list(messages):
            messages = rewritten
            yield messages, tools


def _function(tool: Mapping[str, Any], function: Mapping[str, Any]) -> dict[str, Any]:
    return {**tool, "function": function}


def _system_count(messages: Sequence[Message]) -> int:
    """Number of system messages at the beginning."""
    return next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))


def _loses_system_text(messages: Sequence[Message], text: str) -> bool:
    """Whether only one of several system messages was shown: MiniMax's and GPT-OSS's templates do that."""
    count = _system_count(messages)
    return count > 1 and not all(message["content"].strip() in text for message in messages[:count])


def _described(function: Mapping[str, Any]) -> dict[str, Any]:
    """A description for the tool and for each of its parameters, empty where there was none."""
    parameters = dict(function.get("parameters") or {})
    properties = parameters.get("properties")
    named = properties if isinstance(properties, Mapping) else {}
    parameters["properties"] = {name: _with_description(schema) for name, schema in named.items()}
    return {"description": "", **function, "parameters": parameters}


def _with_description(schema: Any) -> Any:
    if schema is False:
        return schema
    return {"description": "", **(schema if isinstance(schema, Mapping) else {})}


def _without_null_types(part: Any) -> Any:
    """A schema in which no type is `null`, and a type is one name wherever one is left."""
    if isinstance(part, list):
        return [_without_null_types(each) for each in part]
    if not isinstance(part, Mapping):
        return part
    plainer = {key: _without_null_types(value) for key, value in part.items() if key != "type"}
    if "type" not in part or isinstance(part["type"], Mapping):  # a parameter may be called `type`
        return {key: _without_null_types(value) for key, value in part.items()}
    types = part["type"] if isinstance(part["type"], list) else [part["type"]]
    kept = [name for name in types if name != "null"]
    return {**plainer, "type": kept[0] if len(kept) == 1 else kept} if kept else plainer


def _arguments_as_objects(messages: Sequence[Message]) -> list[Message]:
    """Arguments that were cut, as far as they go."""
    return [
        {**message, "tool_calls": [_with_object(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": read_object(function["arguments"])}}


def read_object(arguments: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """A call's arguments as an object: of JSON that was cut what is there, of anything else the text itself."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = pydantic_core.from_json(arguments, allow_partial="trailing-strings")
    except ValueError:
        value = None
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {"arguments": arguments}


def _one_system_message(messages: Sequence[Message]) -> list[Message]:
    """The system messages at the beginning joined to one."""
    count = _system_count(messages)
    if count < 2:
        return list(messages)
    text = "\n\n".join(message["content"] for message in messages[:count])
    return [{**messages[0], "content": text}, *messages[count:]]


def _system_in_user_message(messages: Sequence[Message]) -> list[Message]:
    """The system message at the beginning of the first user message, or as one."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, rest = messages[0]["content"], list(messages[1:])
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{system}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": system}, *rest]
