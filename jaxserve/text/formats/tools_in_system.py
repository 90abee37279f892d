"""Tools for models whose template knows none: explained in the system message, calls and results written as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxserve.text.chat import Message, Renderer

_INSTRUCTIONS = """You can call these functions, described by JSON Schema:
{tools}

To call one, write a JSON object with its name and arguments between markers, and nothing after the last call:
<tool_call>
{{"name": "function_name", "arguments": {{"parameter": "value"}}}}
</tool_call>"""


_EXPLAINED = """You can call these functions, described by JSON Schema:
{tools}

To call functions, end your answer with calls in exactly this form:
{example}"""


class ToolsExplained:
    """Wraps a template that writes calls and their results but never shows the tools.

    Args:
        template: of the model.
        example: a call as the model writes it, of a function `function_name`.
    """

    def __init__(self, template: Renderer, example: str) -> None:
        self._template = template
        self._example = example

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_args: Any,
    ) -> str:
        """See `ChatTemplate.render`."""
        shown = [dict(message) for message in messages]
        if tools:
            listed = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
            shown = _with_system_text(shown, _EXPLAINED.format(tools=listed, example=self._example))
        return self._template.render(shown, add_generation_prompt=add_generation_prompt, **template_args)


class ToolsInSystem:
    """Wraps a template that reads no `tools`."""

    def __init__(self, template: Renderer) -> None:
        self._template = template

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_args: Any,
    ) -> str:
        """See `ChatTemplate.render`."""
        texts = [_as_text(message) for message in messages]
        if tools:
            texts = _with_tools(texts, tools)
        return self._template.render(
            _merge_results(texts), add_generation_prompt=add_generation_prompt, **template_args
        )


def _with_tools(messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    functions = [tool.get("function", tool) for tool in tools]
    text = _INSTRUCTIONS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in functions))
    return _with_system_text(messages, text)


def _with_system_text(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _as_text(message: Message) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "tool", "content": f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"}
    calls = message.get("tool_calls") or ()
    written = [_call_text(call["function"]) for call in calls]
    content = "\n".join(filter(None, (message.get("content"), *written)))
    return {key: value for key, value in message.items() if key != "tool_calls"} | {"content": content}


def _call_text(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {json.dumps(function["name"])}, "arguments": {text}}}\n</tool_call>'


def _merge_results(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Joins results with the user messages beside them: many templates refuse two messages of one role in a row."""
    merged: list[dict[str, Any]] = []
    after_result = False
    for message in messages:
        result = message["role"] == "tool"
        shown = {**message, "role": "user"} if result else message
        if (result or after_result) and shown["role"] == "user" and merged and merged[-1]["role"] == "user":
            merged[-1] = {**merged[-1], "content": f"{merged[-1]['content']}\n{shown['content']}"}
        else:
            merged.append(shown)
        after_result = result
    return merged
