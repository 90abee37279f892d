"""Chunks to one response: the exact sum of the stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from jaxserve.api.lift import Chunk
from jaxserve.api.schema.requests import Endpoint
from jaxserve.api.schema.responses import ChatCompletionResponse, CompletionResponse

Response = ChatCompletionResponse | CompletionResponse


def fold(chunks: Iterable[Chunk], endpoint: Endpoint) -> Response:
    """The response whose stream would have been `chunks` (at least one)."""
    response: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in cast(Iterable[dict[str, Any]], chunks):
        response |= {key: value for key, value in chunk.items() if key != "choices"}
        for piece in chunk["choices"]:
            _add(choices.setdefault(piece["index"], {"index": piece["index"]}), piece)
    texts = _finish_chat if endpoint == "chat" else _finish_completion
    response["choices"] = [texts(choices[index]) for index in sorted(choices)]
    if endpoint == "chat":
        response["object"] = "chat.completion"
    return cast(Response, response)


def _add(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    delta = piece.get("delta", {})
    choice["role"] = delta.get("role") or choice.get("role")
    choice.setdefault("text", []).append(piece.get("text") or delta.get("content") or "")
    choice.setdefault("reasoning", []).append(delta.get("reasoning_content") or "")
    for call in delta.get("tool_calls") or ():
        _add_call(choice.setdefault("calls", {}), call)
    if called := delta.get("function_call"):
        _add_function(choice.setdefault("function_call", {"arguments": ""}), called)
    choice["finish_reason"] = piece["finish_reason"]
    for key in ("prompt_token_ids", "raw_output"):
        if key in piece:
            choice[key] = piece[key]
    if "token_ids" in piece:
        choice.setdefault("token_ids", []).extend(piece["token_ids"])
    for key, values in piece.get("logprobs", {}).items():
        choice.setdefault("logprobs", {}).setdefault(key, []).extend(values)


def _add_call(calls: dict[int, dict[str, Any]], piece: dict[str, Any]) -> None:
    if piece["index"] not in calls:
        calls[piece["index"]] = {**piece, "function": dict(piece["function"])}
        del calls[piece["index"]]["index"]
    else:
        calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


def _add_function(function: dict[str, Any], piece: dict[str, Any]) -> None:
    arguments = function["arguments"] + piece["arguments"]
    function |= piece | {"arguments": arguments}


def _finish_chat(choice: dict[str, Any]) -> dict[str, Any]:
    rest: dict[str, Any] = {key: choice[key] for key in ("logprobs", "token_ids", "raw_output") if key in choice}
    message = {"role": choice["role"], "content": "".join(choice["text"])}
    if reasoning := "".join(choice["reasoning"]):
        message["reasoning_content"] = reasoning
    if calls := choice.get("calls"):
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    if called := choice.get("function_call"):
        message["function_call"] = called
    if calls or called:
        message["content"] = message["content"] or None
    return {"index": choice["index"], "message": message, "finish_reason": choice["finish_reason"], **rest}


def _finish_completion(choice: dict[str, Any]) -> dict[str, Any]:
    rest: dict[str, Any] = {
        key: choice[key] for key in ("logprobs", "token_ids", "prompt_token_ids", "raw_output") if key in choice
    }
    return {
        "index": choice["index"],
        "text": "".join(choice["text"]),
        "finish_reason": choice["finish_reason"],
        **rest,
    }
