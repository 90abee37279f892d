"""What requests are refused for that the schema lets through, as far as it can be told without a tokenizer.

Rules between fields, the server's limits, and the fields of the contract whose effect isn't built.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest, GenerationRequest
from jaxserve.api.settings import ModelInfo, Settings
from jaxserve.errors import InvalidRequest, UnknownModel
from jaxserve.options import Limits


@dataclass(frozen=True)
class Unsupported:
    """A field that is in the contract and not built yet: refused by name. Building it means deleting its line."""

    field: str
    what: str
    """The thing that can't be done, for the message."""
    asked: Callable[[GenerationRequest], bool]
    """Whether the request really asks for it; neutral values pass."""


def _chat(test: Callable[[ChatCompletionRequest], bool]) -> Callable[[GenerationRequest], bool]:
    return lambda request: isinstance(request, ChatCompletionRequest) and test(request)


def _has_video(request: ChatCompletionRequest) -> bool:
    contents = [message.content for message in request.messages if isinstance(message.content, list)]
    return any(part.video_url is not None for content in contents for part in content)


UNSUPPORTED: tuple[Unsupported, ...] = (Unsupported("messages", "video (a part of type video_url)", _chat(_has_video)),)


def check(request: GenerationRequest, settings: Settings) -> None:
    """Refuses what the schema alone can't see.

    Raises:
        UnknownModel: the request names another model.
        InvalidRequest: fields conflict, exceed a limit, or ask for what this server can't do.
    """
    check_model(request.model, settings.model)
    _check_conflicts(request)
    _check_limits(request, settings.limits)
    _check_capabilities(request, settings.model)
    _refuse_unsupported(request)


def check_model(name: str, model: ModelInfo) -> None:
    """Refuses the name of a model that isn't served, and says which are.

    Raises:
        UnknownModel: the model doesn't answer to it.
    """
    if not model.answers_to(name):
        served = ", ".join(repr(each) for each in model.names)
        raise UnknownModel(
            "model",
            f"model: {name[:100]!r} is not served here. This server has {served}; the base URL of a client is its "
            "address with /v1 or /inference/v1",
        )


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
    for field in ("return_last_activation", "include_routing_matrix"):
        if getattr(request, field) and request.logprobs is not True:
            raise InvalidRequest(field, f"{field} needs logprobs: true")
    if request.best_of not in (None, request.n):
        raise InvalidRequest("best_of", f"best_of: choices are not ranked here; it may only be n, which is {request.n}")
    if isinstance(request, ChatCompletionRequest):
        _check_chat_conflicts(request)


def _check_chat_conflicts(request: ChatCompletionRequest) -> None:
    if request.tools and request.functions:
        raise InvalidRequest("functions", "functions can't be given together with tools")
    if request.tools or request.functions:
        if request.function_call is not None and request.tool_choice != "auto":
            raise InvalidRequest("function_call", "function_call can't be given together with tool_choice")
    elif request.tool_choice not in ("auto", "none"):
        raise InvalidRequest("tool_choice", "tool_choice needs tools")
    elif request.function_call not in (None, "auto", "none"):
        raise InvalidRequest("function_call", "function_call needs functions")


def _check_capabilities(request: GenerationRequest, model: ModelInfo) -> None:
    if request.store:
        raise InvalidRequest("store", "store: this server keeps no outputs")
    if not model.reads_images and count_images(request):
        field = image_field(request)
        raise InvalidRequest(field, f"{field}: {model.names[0]!r} reads text only, it can't be shown images")
    unknown = next((token for token in request.stop_token_ids or () if token >= model.vocab_size), None)
    if unknown is not None:
        raise InvalidRequest(
            "stop_token_ids",
            f"stop_token_ids: token {unknown} is outside the vocabulary (0 to {model.vocab_size - 1})",
        )
    if request.return_last_activation and not model.returns_activations:
        raise InvalidRequest("return_last_activation", "return_last_activation is not available for this model")
    if request.include_routing_matrix and model.routed_experts is None:
        raise InvalidRequest("include_routing_matrix", "include_routing_matrix needs a model with routed experts")


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
    if (images := count_images(request)) > limits.max_images:
        raise InvalidRequest(
            image_field(request), f"{image_field(request)}: {images} images, at most {limits.max_images}"
        )
    if prompts * request.n > limits.max_choices:
        raise InvalidRequest("n", f"n: more than {limits.max_choices} choices over all prompts")
    _check_schema_sizes(request, limits.max_schema_bytes)


def _check_schema_sizes(request: GenerationRequest, limit: int) -> None:
    schemas: list[tuple[str, object]] = []
    if (wanted := request.response_format) is not None:
        schemas += [("response_format", part) for part in (wanted.schema_, wanted.json_schema, wanted.grammar)]
    if isinstance(request, ChatCompletionRequest):
        schemas += [("tools", tool.function.parameters) for tool in request.tools if tool.function is not None]
        schemas += [("functions", function.parameters) for function in request.functions]
    for field, schema in schemas:
        if _is_surely_larger(schema, limit) or len(json.dumps(schema)) > limit:
            raise InvalidRequest(field, f"{field}: a schema or grammar is larger than {limit} bytes")


def _is_surely_larger(value: object, limit: int) -> bool:
    """Whether so much is in it that it needn't be written, with every other thread standing still, to know."""
    left, rest = limit, [value]
    while rest and left >= 0:
        part = rest.pop()
        left -= max(len(part), 1) if isinstance(part, str | list | dict) else 1
        if isinstance(part, list | dict) and left >= 0:
            rest += part.values() if isinstance(part, dict) else part
    return left < 0


def count_prompts(request: CompletionRequest) -> int:
    """How many prompts the `prompt` field holds."""
    prompt = request.prompt
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1


def image_field(request: GenerationRequest) -> str:
    """The field that holds images."""
    return "messages" if request.endpoint == "chat" else "images"


def count_images(request: GenerationRequest) -> int:
    """How many images the request holds."""
    if isinstance(request, ChatCompletionRequest):
        contents = (message.content for message in request.messages if isinstance(message.content, list))
        return sum(part.image_url is not None for content in contents for part in content)
    return len(request.images or ()) if isinstance(request, CompletionRequest) else 0


def _refuse_unsupported(request: GenerationRequest) -> None:
    for entry in UNSUPPORTED:
        if entry.asked(request):
            raise InvalidRequest(entry.field, f"{entry.field}: {entry.what} is not supported by this server yet")
