"""OpenAI's responses to a chat completion and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxserve.api import sse
from jaxserve.api.dialects.blocks import Block, Blocks, Step
from jaxserve.api.dialects.responses_schema import (
    AllowedTools,
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputImage,
    InputMessage,
    Item,
    NamedTool,
    Part,
    Reasoning,
    ResponsesRequest,
    TextConfig,
    TextFormat,
)
from jaxserve.api.lift import Chunk
from jaxserve.api.usage import Ledger
from jaxserve.errors import InvalidRequest

NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
"""Fields of the contract by what they are called here."""
_SAME = (
    *("model", "stream", "temperature", "top_p", "parallel_tool_calls", "metadata", "user", "safety_identifier"),
    *("service_tier", "prompt_cache_key", "prompt_cache_retention"),
)
"""Fields that mean the same in chat completions."""


def to_chat(request: ResponsesRequest) -> dict[str, Any]:
    """The same request as a body of chat completions.

    Raises:
        InvalidRequest: it asks for what can't be said there.
    """
    text = request.text
    body: dict[str, Any] = {
        **{name: getattr(request, name) for name in _SAME},
        "messages": list(_conversation(request)),
        "return_token_ids": True,  # for the number of reasoning tokens
        "max_tokens": request.max_output_tokens,
        "tools": [_tool(tool) for tool in request.tools or ()],
        "tool_choice": _choice(request.tool_choice),
        "reasoning_effort": request.reasoning and request.reasoning.effort,
        "response_format": text and text.format and _format(text.format),
    }
    return {name: value for name, value in body.items() if value is not None}


def _conversation(request: ResponsesRequest) -> Iterator[dict[str, Any]]:
    """Messages; an answer's reasoning, text and calls, which are items of their own here, are one message there."""
    if request.instructions is not None:
        yield {"role": "system", "content": request.instructions}
    answer: dict[str, Any] | None = None
    if isinstance(request.input, str):
        yield {"role": "user", "content": request.input}
        return
    for item in request.input:
        said = _said(item)
        if said is None:
            if answer is not None:
                yield answer
            answer = None
            yield _asked(item)
        elif answer is None or answer.keys() & said.keys() - {"role", "tool_calls"}:
            if answer is not None:
                yield answer
            answer = said
        else:
            calls = [*answer.get("tool_calls", ()), *said.get("tool_calls", ())]
            answer |= said | ({"tool_calls": calls} if calls else {})
    if answer is not None:
        yield answer


def _said(item: Item) -> dict[str, Any] | None:
    """What an item adds to an answer of the model; None for others' items."""
    if isinstance(item, Reasoning):
        text = "".join(part.text for part in item.content or item.summary)
        return {"role": "assistant", "reasoning_content": text}
    if isinstance(item, FunctionCall):
        function = {"name": item.name, "arguments": item.arguments}
        return {"role": "assistant", "tool_calls": [{"id": item.call_id, "type": "function", "function": function}]}
    if isinstance(item, InputMessage) and item.role == "assistant":
        return {"role": "assistant", "content": _content(item.content)}
    return None


def _asked(item: Item) -> dict[str, Any]:
    if isinstance(item, FunctionCallOutput):
        return {"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)}
    assert isinstance(item, InputMessage)
    return {"role": item.role, "content": _content(item.content)}


def _content(content: str | Sequence[Part]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, InputImage):
        detail = {} if part.detail is None else {"detail": part.detail}
        return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
    return {"type": "text", "text": part.refusal if part.type == "refusal" else part.text}


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(include={"name", "description", "parameters", "strict"})}


def _choice(choice: str | NamedTool | AllowedTools | None) -> Any:
    if not isinstance(choice, AllowedTools):
        return choice if choice is None or isinstance(choice, str) else choice.model_dump()
    tools = [{"type": "function", "function": {"name": tool.name}} for tool in choice.tools]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}


def _format(wanted: TextFormat) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.schema_ is None:
        raise InvalidRequest("text.format.schema", "text.format.schema: a json_schema needs its schema")
    schema = {"name": wanted.name, "schema": wanted.schema_, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": {key: value for key, value in schema.items() if value is not None}}


class ResponsesWire:
    """Writes an answer as OpenAI's clients read a response.

    Args:
        ledger: what the answer cost.
        request: which the answer repeats.
        answer_id: of the answer.
        created: Unix time.
    """

    def __init__(self, ledger: Ledger, request: ResponsesRequest, *, answer_id: str, created: int) -> None:
        self._ledger = ledger
        self._request = request
        self._id, self._created = answer_id, created
        self._blocks = Blocks()
        self._events_sent = 0

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        """See `Wire`."""
        for _ in self._blocks.read(chunks):
            pass
        return sse.encode_json(self._response())

    def events(self, chunks: Sequence[Chunk]) -> bytes:
        """See `Wire`."""
        out = []
        if not self._events_sent:
            begun = {**self._response(), "status": "in_progress", "usage": None}
            out += [self._event(kind, response=begun) for kind in ("response.created", "response.in_progress")]
        out += [event for step in self._blocks.read(chunks) for event in self._step(step)]
        return b"".join(out)

    def end(self) -> bytes:
        """See `Wire`."""
        response = self._response()
        return self._event(f"response.{response['status']}", response=response)

    def failure(self, body: Mapping[str, Any]) -> bytes:
        """See `Wire`."""
        error = body["error"]
        failed = {"code": "server_error", "message": error["message"]}
        response = {**self._response(), "status": "failed", "error": failed, "incomplete_details": None}
        return self._event("response.failed", response=response)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._events_sent, **fields}
        self._events_sent += 1
        return b"event: " + kind.encode() + b"\ndata: " + sse.encode_json(event) + b"\n\n"

    def _step(self, step: Step) -> Iterator[bytes]:
        block = step.block
        where = {"output_index": block.index, "item_id": self._item_id(block)}
        part = {} if block.kind == "call" else {"content_index": 0}
        name = {"text": "output_text", "reasoning": "reasoning_text", "call": "function_call_arguments"}[block.kind]
        logprobs: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
        if step.change == "opened":
            yield self._event(
                "response.output_item.added", output_index=block.index, item=self._item(block, open_=True)
            )
            if part:
                yield self._event("response.content_part.added", **where, **part, part=_text_part(block, ""))
        elif step.change == "grown":
            yield self._event(f"response.{name}.delta", **where, **part, delta=step.added, **logprobs)
        else:
            key = {"arguments": block.text, "name": block.name} if block.kind == "call" else {"text": block.text}
            yield self._event(f"response.{name}.done", **where, **part, **key, **logprobs)
            if part:
                yield self._event("response.content_part.done", **where, **part, part=_text_part(block, block.text))
            yield self._event("response.output_item.done", output_index=block.index, item=self._item(block))

    def _item_id(self, block: Block) -> str:
        prefix = {"text": "msg", "reasoning": "rs", "call": "fc"}[block.kind]
        return f"{prefix}_{self._id.removeprefix('resp_')}_{block.index}"

    def _item(self, block: Block, *, open_: bool = False) -> dict[str, Any]:
        """A block as an item of the output."""
        head = {"id": self._item_id(block), "status": "in_progress" if open_ else "completed"}
        if block.kind == "call":
            arguments = "" if open_ else block.text
            call = {"call_id": block.call_id, "name": block.name, "arguments": arguments}
            return {"type": "function_call", **head, **call}
        parts = [] if open_ else [_text_part(block, block.text)]
        if block.kind == "reasoning":
            return {"type": "reasoning", **head, "summary": [], "content": parts}
        if not open_ and self._blocks.finish_reason == "length" and block is self._blocks.all[-1]:
            head["status"] = "incomplete"
        return {"type": "message", **head, "role": "assistant", "content": parts}

    def _response(self) -> dict[str, Any]:
        request, cut = self._request, self._blocks.finish_reason == "length"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": "incomplete" if cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": request.model,
            "output": [self._item(block) for block in self._blocks.all],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": request.reasoning and request.reasoning.effort, "summary": None},
            "store": False,
            "temperature": request.temperature,
            "text": {"format": _shown(request.text)},
            "tool_choice": _shown_choice(request.tool_choice),
            "tools": [tool.model_dump() for tool in request.tools or ()],
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": self._usage(),
            "user": request.user,
            "metadata": request.metadata or {},
        }

    def _usage(self) -> dict[str, Any]:
        ledger = self._ledger
        return {
            "input_tokens": ledger.prompt_tokens,
            "input_tokens_details": {"cached_tokens": ledger.cached_tokens},
            "output_tokens": ledger.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self._blocks.reasoning_tokens},
            "total_tokens": ledger.prompt_tokens + ledger.completion_tokens,
        }


def _text_part(block: Block, text: str) -> dict[str, Any]:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _shown(text: TextConfig | None) -> dict[str, Any]:
    if text is None or text.format is None:
        return {"type": "text"}
    return text.format.model_dump(by_alias=True, exclude_none=True)


def _shown_choice(choice: str | NamedTool | AllowedTools | None) -> Any:
    return choice or "auto" if choice is None or isinstance(choice, str) else choice.model_dump()
