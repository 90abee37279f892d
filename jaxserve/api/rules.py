"""Rules between fields, and the server's limits: everything that can be checked without a tokenizer."""

from __future__ import annotations

import json

from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest
from jaxserve.api.settings import ModelInfo, Settings
from jaxserve.api.unsupported import refuse_unsupported
from jaxserve.errors import InvalidRequest, UnknownModel
from jaxserve.options import Limits


def check(request: GenerationRequest, settings: Settings) -> None:
    """Refuses what the schema alone can't see.

    Raises:
        UnknownModel: the request names another model.
        InvalidRequest: fields conflict, exceed a limit, or ask for what this server can't do.
    """
    if request.model not in settings.model.names:
        raise UnknownModel("model", f"model: {request.model[:100]!r} is not served here; see GET /v1/models")
    _check_conflicts(request)
    _check_limits(request, settings.limits)
    _check_capabilities(request, settings.model)
    refuse_unsupported(request)


def _check_conflicts(request: GenerationRequest) -> None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise InvalidRequest("max_completion_tokens", "max_completion_tokens can't be given together with max_tokens")
    for field in ("max_tokens", "max_completion_tokens"):
        if getattr(request, field) == 0 and not request.echoes:
            raise InvalidRequest(field, f"{field} must be at least 1 unless the prompt is echoed")
    if request.top_logprobs is not None and not request.wants_logprobs:
        raise InvalidRequest("top_logprobs", "top_logprobs needs logprobs")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("stream_options", "stream_options needs stream")
    for field in ("return_last_activation", "return_routing_matrix"):
        if getattr(request, field) and request.logprobs is not True:
            raise InvalidRequest(field, f"{field} needs logprobs: true")
    if isinstance(request, ChatCompletionRequest):
        _check_chat_conflicts(request)


def _check_chat_conflicts(request: ChatCompletionRequest) -> None:
    if request.thinking is not None and request.reasoning_effort is not None:
        raise InvalidRequest("thinking", "thinking can't be given together with reasoning_effort")
    if request.tool_choice not in ("auto", "none") and not (request.tools or request.functions):
        raise InvalidRequest("tool_choice", "tool_choice needs tools")
    if request.function_call not in (None, "auto", "none") and not (request.tools or request.functions):
        raise InvalidRequest("function_call", "function_call needs functions")


def _check_capabilities(request: GenerationRequest, model: ModelInfo) -> None:
    if request.store:
        raise InvalidRequest("store", "store: this server keeps no outputs")
    if request.return_last_activation and not model.returns_activations:
        raise InvalidRequest("return_last_activation", "return_last_activation is not available for this model")
    if request.return_routing_matrix and model.routed_experts is None:
        raise InvalidRequest("return_routing_matrix", "return_routing_matrix needs a model with routed experts")


def _check_limits(request: GenerationRequest, limits: Limits) -> None:
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if any(len(stop) > limits.max_stop_length for stop in stops):
        raise InvalidRequest("stop", f"stop: a text is longer than {limits.max_stop_length} characters")
    prompts = 1
    if isinstance(request, ChatCompletionRequest) and len(request.messages) > limits.max_messages:
        raise InvalidRequest("messages", f"messages: more than {limits.max_messages}")
    if isinstance(request, CompletionRequest):
        prompts = count_prompts(request)
        if prompts > limits.max_prompts:
            raise InvalidRequest("prompt", f"prompt: more than {limits.max_prompts} prompts")
    if prompts * request.n > limits.max_choices:
        raise InvalidRequest("n", f"n: more than {limits.max_choices} choices over all prompts")
    _check_schema_sizes(request, limits.max_schema_bytes)


def _check_schema_sizes(request: GenerationRequest, limit: int) -> None:
    schemas: list[tuple[str, object]] = []
    if request.response_format is not None:
        schemas.append(("response_format", request.response_format.model_dump(by_alias=True)))
    if isinstance(request, ChatCompletionRequest):
        schemas += [("tools", tool.function.parameters) for tool in request.tools if tool.function is not None]
        schemas += [("functions", function.parameters) for function in request.functions]
    for field, schema in schemas:
        if len(json.dumps(schema)) > limit:
            raise InvalidRequest(field, f"{field}: a schema or grammar is larger than {limit} bytes")


def count_prompts(request: CompletionRequest) -> int:
    """How many prompts the `prompt` field holds."""
    prompt = request.prompt
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
