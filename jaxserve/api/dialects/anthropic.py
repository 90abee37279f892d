"""Anthropic's messages to a chat completion and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxserve.api import sse
from jaxserve.api.dialects.anthropic_schema import (
    CountTokensRequest,
    ImageBlock,
    Message,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)
from jaxserve.api.dialects.blocks import Block, Blocks, Step
from jaxserve.api.lift import Chunk
from jaxserve.api.usage import Ledger
from jaxserve.errors import InvalidRequest

NAMES = {
    "stop": "stop_sequences",
    "response_format": "output_config",
    "reasoning_effort": "output_config",
    "user": "metadata",
    "parallel_tool_calls": "tool_choice",
}
"""Fields of the contract by what they are called here."""
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERRORS = {"server_error": "api_error", "service_unavailable_error": "overloaded_error"}
_TIERS = {"auto": "auto", "standard_only": "default"}


def to_chat(request: CountTokensRequest) -> dict[str, Any]:
    """The same request as a body of chat completions.

    Raises:
        InvalidRequest: it asks for what can't be said there.
    """
    if request.messages[-1].role != "user":
        raise InvalidRequest(
            "messages", "messages: the last must be the user's; to continue an answer is not supported"
        )
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [*_system(request.system), *(m for message in request.messages for m in _messages(message))],
        "tools": [_tool(tool) for tool in request.tools or ()],
        **_choice(request.tool_choice),
        "thinking": request.thinking and request.thinking.model_dump(exclude_none=True),
    }
    if (config := request.output_config) is not None:
        body["reasoning_effort"] = config.effort
        if config.format is not None:
            schema = {"name": "answer", "schema": config.format.schema_}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(request, MessagesRequest):
        body |= {
            "max_tokens": request.max_tokens,
            "user": request.metadata and request.metadata.user_id,
            "stop": request.stop_sequences or None,
            "service_tier": _TIERS[request.service_tier or "auto"],
            **{name: getattr(request, name) for name in ("stream", "temperature", "top_p", "top_k", "raw_output")},
        }
    return {name: value for name, value in body.items() if value is not None}


def _system(system: str | Sequence[TextBlock] | None) -> list[dict[str, Any]]:
    if not system:
        return []
    text = system if isinstance(system, str) else "\n".join(block.text for block in system)
    return [{"role": "system", "content": text}]


def _messages(message: Message) -> Iterator[dict[str, Any]]:
    """One message as several: each result of a tool is one of its own."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    parts = message.content
    if message.role == "assistant":
        yield _answer(parts)
        return
    for block in parts:
        if isinstance(block, ToolResultBlock):
            yield _result(block)
    shown = [_part(block) for block in parts if not isinstance(block, ToolResultBlock)]
    if shown or not parts:
        yield {"role": "user", "content": shown or ""}


def _answer(parts: Sequence[Any]) -> dict[str, Any]:
    reasoning = "".join(block.thinking for block in parts if isinstance(block, ThinkingBlock))
    calls = [
        {"id": b.id, "type": "function", "function": {"name": b.name, "arguments": json.dumps(b.input)}}
        for b in parts
        if isinstance(b, ToolUseBlock)
    ]
    texts = [_part(block) for block in parts if not isinstance(block, ThinkingBlock | ToolUseBlock)]
    message: dict[str, Any] = {"role": "assistant", "content": texts or (None if calls or reasoning else "")}
    return message | ({"reasoning_content": reasoning} if reasoning else {}) | ({"tool_calls": calls} if calls else {})


def _part(block: Any) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if isinstance(block, ImageBlock):
        source = block.source
        url = source.url if source.type == "url" else f"data:{source.media_type};base64,{source.data}"
        return {"type": "image_url", "image_url": {"url": url}}
    raise InvalidRequest("messages", f"messages: a block of type {block.type} can't stand in this message")


def _result(block: ToolResultBlock) -> dict[str, Any]:
    content: Any = block.content or ""
    if not isinstance(content, str):
        content = [_part(part) for part in content]
    if block.is_error:
        content = f"Error: {content}" if isinstance(content, str) else [{"type": "text", "text": "Error:"}, *content]
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "strict": tool.strict}
    return {"type": "function", "function": {**function, "parameters": tool.input_schema}}


def _choice(choice: ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    if (choice.type == "tool") != (choice.name is not None):
        raise InvalidRequest("tool_choice", "tool_choice: a name belongs to the type tool, and only to it")
    named = {"type": "function", "function": {"name": choice.name}}
    kinds: dict[str, Any] = {"auto": "auto", "none": "none", "any": "required", "tool": named}
    parallel = None if choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use
    return {"tool_choice": kinds[choice.type], "parallel_tool_calls": parallel}


class AnthropicWire:
    """Writes an answer as Anthropic's clients read it.

    Args:
        ledger: what the answer cost, and the stop text that ended it.
        model: as the client named it.
        answer_id: of the answer.
    """

    def __init__(self, ledger: Ledger, *, model: str, answer_id: str) -> None:
        self._ledger = ledger
        self._blocks = Blocks()
        self._head = {"id": answer_id, "type": "message", "role": "assistant", "model": model}
        self._begun = False
        self._raw: Any = None

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        """See `Wire`."""
        for _ in self._read(chunks):
            pass
        answer = {**self._head, "content": [_block(block) for block in self._blocks.all], **self._ending()}
        raw = {} if self._raw is None else {"raw_output": self._raw}
        return sse.encode_json({**answer, "usage": self._usage(), **raw})

    def events(self, chunks: Sequence[Chunk]) -> bytes:
        """See `Wire`."""
        return b"".join(_event(event) for event in self._events(chunks))

    def end(self) -> bytes:
        """See `Wire`."""
        usage = self._usage()
        raw = {} if self._raw is None else {"raw_output": self._raw}
        return _event({"type": "message_delta", "delta": self._ending(), "usage": usage, **raw}) + _event(
            {"type": "message_stop"}
        )

    def failure(self, body: Mapping[str, Any]) -> bytes:
        """See `Wire`."""
        return _event(error_body(body))

    def _read(self, chunks: Sequence[Chunk]) -> Iterator[Step]:
        for chunk in chunks:
            for choice in chunk["choices"]:
                self._raw = choice.get("raw_output", self._raw)
        yield from self._blocks.read(chunks)

    def _events(self, chunks: Sequence[Chunk]) -> Iterator[dict[str, Any]]:
        if not self._begun:
            self._begun = True
            nothing: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
            yield {"type": "message_start", "message": {**self._head, **nothing, "usage": self._usage(output=False)}}
        for step in self._read(chunks):
            place = {"index": step.block.index}
            if step.change == "opened":
                yield {"type": "content_block_start", **place, "content_block": _empty(step.block)}
            elif step.change == "grown":
                yield {"type": "content_block_delta", **place, "delta": _delta(step)}
            else:
                if step.block.kind == "reasoning":
                    delta = {"type": "signature_delta", "signature": ""}
                    yield {"type": "content_block_delta", **place, "delta": delta}
                yield {"type": "content_block_stop", **place}

    def _ending(self) -> dict[str, Any]:
        reason, stop = self._blocks.finish_reason or "stop", self._ledger.stop_text
        if reason == "stop" and stop is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        return {"stop_reason": _STOP_REASONS[reason], "stop_sequence": None}

    def _usage(self, *, output: bool = True) -> dict[str, int]:
        cached = self._ledger.cached_tokens
        return {
            "input_tokens": self._ledger.prompt_tokens - cached,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": self._ledger.completion_tokens if output else 0,
        }


def _block(block: Block) -> dict[str, Any]:
    if block.kind == "text":
        return {"type": "text", "text": block.text}
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": block.text, "signature": ""}
    return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": _input(block.text)}


def _input(arguments: str) -> dict[str, Any]:
    """A call's arguments; what is no object stands under a name of its own."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}


def _empty(block: Block) -> dict[str, Any]:
    """The block as it begins."""
    return _block(Block(block.index, block.kind, "", block.call_id, block.name))


def _delta(step: Step) -> dict[str, Any]:
    kind = step.block.kind
    if kind == "call":
        return {"type": "input_json_delta", "partial_json": step.added}
    return (
        {"type": "text_delta", "text": step.added}
        if kind == "text"
        else {
            "type": "thinking_delta",
            "thinking": step.added,
        }
    )


def _event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + sse.encode_json(event) + b"\n\n"


def error_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """A failure as Anthropic's clients read it, with what the contract's clients find in it."""
    error = body["error"]
    return {"type": "error", **body, "error": {**error, "type": _ERRORS.get(error["type"], error["type"])}}
