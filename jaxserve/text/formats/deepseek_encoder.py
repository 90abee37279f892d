"""DeepSeek V3.2's prompts. The model comes without a chat template: its makers describe an encoder instead.

Source: the prompt format that the model's card defines (DSML markup for calls, `<function_results>` for answers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxserve.errors import TemplateError
from jaxserve.text.formats.neutral_forms import read_object

_DSML = "｜DSML｜"
_USER, _ASSISTANT, _EOS = "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"
_TOOLS = """## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<{d}function_calls>" block like the following as part of your reply to the user:
<{d}function_calls>
<{d}invoke name="$FUNCTION_NAME">
<{d}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{d}parameter>
...
</{d}invoke>
<{d}invoke name="$FUNCTION_NAME2">
...
</{d}invoke>
</{d}function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should \
use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types \
(numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. \
Here is an example:

<{d}function_calls>
...
</{d}function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
""".replace("{d}", _DSML)


class DeepseekV32Encoder:
    """Writes conversations for DeepSeek V3.2. Stateless.

    Args:
        bos: the text of the BOS token, with which a prompt begins.
    """

    def __init__(self, bos: str) -> None:
        self._bos = bos

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        thinking: bool = False,
        **template_args: Any,
    ) -> str:
        """See `ChatTemplate.render`. `thinking`: open the reasoning; reasoning of earlier turns is left out.

        Raises:
            TemplateError: a role that the format doesn't have.
        """
        users = [index for index, message in enumerate(messages) if message["role"] == "user"]
        writer = _Writer(thinking, users[-1] if users else -1)
        for index, message in enumerate(messages):
            writer.add(index, message)
        if add_generation_prompt:
            writer.open_answer("<think>" if thinking else "</think>")
        return self._bos + _system(messages, tools) + "".join(writer.parts)


class _Writer:
    """The turns written so far."""

    def __init__(self, thinking: bool, last_user: int) -> None:
        self.parts: list[str] = []
        self._thinking = thinking
        self._last_user = last_user
        self._expects = ""
        """What opens the next answer: the assistant's marker, or a gap after results."""
        self._results = 0

    def add(self, index: int, message: Mapping[str, Any]) -> None:
        role = message["role"]
        if role == "user":
            self.parts.append(_USER + (message.get("content") or ""))
            self._expects = _ASSISTANT
        elif role == "assistant":
            self._assistant(index, message)
        elif role == "tool":
            self._result(message)
        elif role != "system":
            raise TemplateError("messages", f"messages: DeepSeek V3.2's encoder knows no role {role!r}")

    def open_answer(self, marker: str) -> None:
        if self._expects:
            self._end_results()
            self.parts.append(self._expects + marker)

    def _assistant(self, index: int, message: Mapping[str, Any]) -> None:
        if self._expects:
            self._end_results()
            current = index > self._last_user and self._thinking
            reasoning = message.get("reasoning_content") or ""
            self.parts.append(self._expects + (f"<think>{reasoning}" if current else "") + "</think>")
        self._expects = ""
        self.parts.append(message.get("content") or "")
        if message.get("tool_calls"):
            self.parts.append(_calls(message["tool_calls"]))
        self.parts.append(_EOS)

    def _result(self, message: Mapping[str, Any]) -> None:
        opening = "" if self._results else "\n\n<function_results>"
        self.parts.append(f"{opening}\n<result>{message.get('content') or ''}</result>")
        self._results += 1
        self._expects = "\n\n"

    def _end_results(self) -> None:
        if self._results:
            self.parts.append("\n</function_results>")
        self._results = 0


def _system(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> str:
    texts = [message.get("content") or "" for message in messages if message["role"] == "system"]
    if tools:
        functions = "".join(_json(tool.get("function", tool)) + "\n" for tool in tools)
        texts = [*filter(None, texts), f"{_TOOLS}{functions}</functions>\n"]
    return "\n\n".join(texts)


def _calls(calls: Sequence[Mapping[str, Any]]) -> str:
    written = "".join(_call(call["function"]) for call in calls)
    return f"\n\n<{_DSML}function_calls>\n{written}</{_DSML}function_calls>"


def _call(function: Mapping[str, Any]) -> str:
    written = "".join(_parameter(key, value) for key, value in read_object(function["arguments"]).items())
    return f'<{_DSML}invoke name="{function["name"]}">\n{written}</{_DSML}invoke>\n'


def _parameter(key: str, value: Any) -> str:
    text, string = (value, "true") if isinstance(value, str) else (_json(value), "false")
    return f'<{_DSML}parameter name="{key}" string="{string}">{text}</{_DSML}parameter>\n'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
