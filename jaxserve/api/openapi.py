"""`/openapi.json`: the contract as this server fulfils it."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

import jaxserve
from jaxserve.api.context import PREFIXES
from jaxserve.api.dialects.anthropic_schema import CountTokensRequest, MessagesRequest
from jaxserve.api.dialects.responses_schema import ResponsesRequest
from jaxserve.api.examples import examples
from jaxserve.api.schema import responses
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest
from jaxserve.api.schema.tokens import DetokenizeRequest, TokenizeRequest
from jaxserve.api.settings import Settings

_REF = "#/components/schemas/{model}"
_RESPONSES = (
    responses.ChatCompletionResponse,
    responses.ChatCompletionStreamResponse,
    responses.CompletionResponse,
    responses.CompletionStreamResponse,
    responses.ModelList,
    responses.ModelCard,
    responses.ErrorResponse,
    responses.Status,
)
ERRORS = {
    400: "The model can't take the request: context exceeded, or refused by the chat template; or the request "
    "contradicts its own headers.",
    401: "No accepted API key.",
    404: "Unknown model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is neither JSON nor gzip of it.",
    422: "A field is malformed, out of range, unknown, or not supported.",
    429: "Too many requests are waiting; Retry-After follows the queue.",
    500: "The server failed.",
    503: "The engine isn't ready, or has stopped.",
}
"""What each error status means."""


def openapi_document(settings: Settings) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server."""
    components: dict[str, Any] = {"schemas": schemas()}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "jaxserve", "version": jaxserve.__version__, "description": jaxserve.__doc__},
        "paths": _paths(settings),
        "components": components,
    }
    if settings.api_keys:
        components["securitySchemes"] = {"BearerAuth": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            if path.startswith(PREFIXES):
                for operation in operations.values():
                    operation["security"] = [{"BearerAuth": []}]
    return document


_GENERATING: dict[str, tuple[str, str, str]] = {
    "/chat/completions": ("create_chat_completion", "ChatCompletion", "Answers a conversation."),
    "/completions": ("create_completion", "Completion", "Continues one or several prompts."),
}
"""The contract's routes: name of the operation, of its objects, and what it does."""
_DIALECTS: dict[str, tuple[type[BaseModel], str]] = {
    "/messages": (MessagesRequest, "Answers a conversation, in the form of Anthropic's messages."),
    "/messages/count_tokens": (CountTokensRequest, "Counts the tokens of a message's prompt."),
    "/responses": (ResponsesRequest, "Answers a conversation, in the form of OpenAI's responses."),
    "/tokenize": (TokenizeRequest, "The tokens of a text or a conversation."),
    "/detokenize": (DetokenizeRequest, "The text of some tokens."),
}
"""Routes beside the contract: their bodies, and what they do. Their answers are described by those whose API it is."""


@cache
def _dialect_schemas() -> dict[str, Any]:
    """The objects of their bodies, as `ROUTE.NAME`: the dialects share names."""
    found: dict[str, Any] = {}
    for path, (model, _) in _DIALECTS.items():
        prefix = _prefix(path)
        _, made = models_json_schema([(model, "validation")], ref_template=_REF.format(model=prefix + "{model}"))
        found |= {prefix + name: schema for name, schema in made["$defs"].items()}
    return found


def _prefix(path: str) -> str:
    return path.strip("/").replace("/", "_") + "."


@cache
def schemas() -> dict[str, Any]:
    """Every object of the contract by its name."""
    inputs: Any = [(ChatCompletionRequest, "validation"), (CompletionRequest, "validation")]
    _, requests = models_json_schema(inputs, ref_template=_REF)
    adapters: Any = [(kind.__name__, "serialization", TypeAdapter(kind)) for kind in _RESPONSES]
    _, answers = TypeAdapter.json_schemas(adapters, ref_template=_REF)
    return {**requests["$defs"], **answers["$defs"], **_dialect_schemas()}


def _paths(settings: Settings) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for prefix in PREFIXES:
        for path, (name, kind, summary) in _GENERATING.items():
            shown = examples(path, settings)
            paths[f"{prefix}{path}"] = {"post": _generating(name, prefix, summary, kind, shown)}
        for path, (model, summary) in _DIALECTS.items():
            shown = examples(path, settings)
            paths[f"{prefix}{path}"] = {"post": _dialect(path, prefix, model, summary, shown)}
        paths[f"{prefix}/models"] = {"get": _get("list_models", prefix, "Lists the served names.", "ModelList")}
        paths[f"{prefix}/models/{{model_id}}"] = {"get": _model(prefix)}
    paths["/health"] = {"get": _probe("health", "Whether the engine runs.")}
    paths["/ready"] = {"get": _probe("ready", "Whether requests are accepted.")}
    paths["/metrics"] = {
        "get": {
            "operationId": "metrics",
            "summary": "Prometheus metrics.",
            "responses": {
                "200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
            },
        }
    }
    paths["/version"] = {"get": _get("version", "", "The server's version.", None)}
    return paths


def _generating(name: str, prefix: str, summary: str, kind: str, shown: dict[str, Any]) -> dict[str, Any]:
    success = {
        "description": "The output; with `stream`, as server-sent events.",
        "headers": {"x-request-id": _header("Id of the request, also in the server's log.")},
        "content": {
            "application/json": {"schema": _ref(f"{kind}Response")},
            "text/event-stream": {"schema": _events(f"{kind}StreamResponse")},
        },
    }
    body = {"schema": _ref(f"{kind}Request"), "examples": shown}
    return {
        "operationId": _operation(name, prefix),
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {"200": success, **{str(status): _error(status) for status in ERRORS}},
    }


def _dialect(path: str, prefix: str, model: type[BaseModel], summary: str, shown: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if path in ("/messages", "/responses"):
        content["text/event-stream"] = {"schema": {}}
    body = {"schema": _ref(_prefix(path) + model.__name__), "examples": shown}
    return {
        "operationId": _operation(_prefix(path).strip("."), prefix),
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": summary, "content": content},
            **{str(status): _error(status) for status in ERRORS},
        },
    }


def _events(chunk: str) -> dict[str, Any]:
    """One event of a stream: a chunk, the end mark, or the failure that ends the stream instead."""
    kinds = {"message": _ref(chunk), "error": _ref("ErrorResponse")}
    payloads = {
        event: {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
        for event, schema in kinds.items()
    }
    return {
        "title": "ServerSentEvent",
        "description": "The fields of one event; comments keep the connection alive.",
        "type": "object",
        "properties": {
            "event": {"type": "string", "default": "message", "enum": list(kinds)},
            "data": {"type": "string"},
        },
        "required": ["data"],
        "if": {"properties": {"data": {"const": "[DONE]"}}},
        "else": {
            "if": {"properties": {"event": {"const": "error"}}, "required": ["event"]},
            "then": {"properties": {"data": payloads["error"]}},
            "else": {"properties": {"data": payloads["message"]}},
        },
    }


def _get(name: str, prefix: str, summary: str, schema: str | None) -> dict[str, Any]:
    content = {"schema": _ref(schema) if schema else {"type": "object", "additionalProperties": {"type": "string"}}}
    answers = {"200": {"description": summary, "content": {"application/json": content}}}
    if prefix:
        answers["401"] = _error(401)
    return {"operationId": _operation(name, prefix), "summary": summary, "responses": answers}


def _model(prefix: str) -> dict[str, Any]:
    operation = _get("get_model", prefix, "One model: context length, vocabulary, features.", "ModelCard")
    operation["parameters"] = [
        {
            "name": "model_id",
            "in": "path",
            "required": True,
            "description": "A served name; it may contain slashes.",
            "schema": {"type": "string"},
        }
    ]
    operation["responses"]["404"] = _error(404)
    return operation


def _probe(name: str, summary: str) -> dict[str, Any]:
    operation = _get(name, "", summary, "Status")
    operation["responses"]["503"] = {"description": "No.", "content": {"application/json": {"schema": _ref("Status")}}}
    return operation


def _error(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": ERRORS[status],
        "content": {"application/json": {"schema": _ref("ErrorResponse")}},
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": _header("Seconds to wait before trying again.")}
    return answer


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _operation(name: str, prefix: str) -> str:
    return name if prefix in ("", PREFIXES[0]) else f"{name}_{prefix.strip('/').replace('/', '_')}"


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}
