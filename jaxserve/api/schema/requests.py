"""The two request bodies: every documented field with its range, default and meaning.

Fields that are documented for one endpoint and make sense for the other stand in the common base, sampling's are made
from the knobs (`sampling`). A field that isn't
built yet is described here all the same and refused in `rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WrapValidator
from pydantic_core import PydanticCustomError

from jaxserve.api.schema.base import StrictModel, TokenId, integral, whole_number
from jaxserve.api.schema.extras import AllowedTools, ChatClientFields, ClientFields, CompletionClientFields
from jaxserve.api.schema.messages import ChatMessage, PredictedOutput
from jaxserve.api.schema.sampling import SamplingFields
from jaxserve.api.schema.tools import (
    ChatCompletionFunction,
    ChatCompletionTool,
    FunctionNameSpec,
    FunctionSelection,
    ResponseFormat,
    ThinkingConfigDisabled,
    ThinkingConfigEnabled,
)

Endpoint = Literal["chat", "completions"]
Effort = Literal["low", "medium", "high", "none", "minimal", "xhigh", "max"]
StopText = Annotated[str, Field(min_length=1)]


class StreamOptions(StrictModel):
    """How a stream ends."""

    include_usage: bool | None = Field(
        None,
        description="true: send a closing chunk without choices that carries `usage`; false: send none. Without it,"
        " `usage` comes with the last finish reason.",
    )
    include_obfuscation: Literal[False] | None = Field(None, description="Chunks are never padded.")


class OutputFields(StrictModel):
    """Of which model, how much, and how it is sent."""

    model: str = Field(
        min_length=1, description="Name of the served model (see `GET /v1/models`).", examples=["stories"]
    )
    stream: bool | None = Field(False, description="Send the output as server-sent events while it is generated.")
    stream_options: StreamOptions | None = Field(None, description="Options of a stream; only with `stream`.")
    n: Annotated[int, Field(ge=1, le=128), integral] = Field(
        1, description="Choices to generate for each prompt.", examples=[1]
    )
    max_tokens: Annotated[int, Field(ge=0), integral] | None = Field(
        None,
        description="Most tokens to generate for each choice; lowered to fit the context unless"
        " `context_length_exceeded_behavior` says otherwise. 0 only with `echo`. Default: chat 2048, completions 16.",
        examples=[64],
    )
    max_completion_tokens: Annotated[int, Field(ge=0), integral] | None = Field(
        None, description="The same as `max_tokens`; only one of the two may be given."
    )
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = Field(
        None, description="Up to 4 texts that end the output. They are not part of it.", examples=[["\n\n"]]
    )


class GenerationRequest(ClientFields, SamplingFields, OutputFields):
    """What both endpoints share."""

    endpoint: ClassVar[Endpoint]
    prompt_field: ClassVar[str]
    """The field that holds the prompt."""

    logprobs: bool | Annotated[int, Field(ge=0, le=5), integral] | None = Field(
        None,
        description="Log-probabilities of the output: `true` in OpenAI's newer format, a number N in the legacy format"
        " with up to N alternatives for each token.",
    )
    top_logprobs: Annotated[int, Field(ge=0, le=5), integral] | None = Field(
        None, description="Alternatives for each token; needs `logprobs`.", examples=[2]
    )
    echo: bool | None = Field(False, description="Return the prompt in front of the output.")
    echo_last: Annotated[int, Field(ge=0), integral] | None = Field(
        None, description="Return the last N tokens of the prompt in front of the output."
    )
    ignore_eos: bool = Field(False, description="Generate on after the model's end-of-sequence token.")
    context_length_exceeded_behavior: Literal["error", "truncate"] = Field(
        "truncate", description="When prompt plus `max_tokens` exceed the context: lower `max_tokens`, or refuse."
    )
    prompt_truncate_len: Annotated[int, Field(ge=1), integral] | None = Field(
        None,
        description="Most prompt tokens. Chat: the earliest messages are evicted first, results of tools never"
        " without their call, the system prompt is cut last."
        " Completions: the prompt's beginning is cut.",
    )
    prompt_cache_isolation_key: str | None = Field(
        None,
        description="Cached prompt prefixes are shared between requests with the same isolation key only, and"
        " with the same API key unless the server shares its cache.",
    )
    prompt_cache_key: str | None = Field(None, description="A second isolation key, under OpenAI's name.")
    prompt_cache_max_len: Annotated[int, Field(ge=0), integral] | None = Field(
        None, description="Most tokens of this prompt to keep in the prefix cache; 0 keeps none."
    )
    return_token_ids: bool | None = Field(False, description="Return the token ids of prompt and output.")
    raw_output: bool | None = Field(False, description="Return what the model really read and wrote.")
    perf_metrics_in_response: bool | None = Field(
        False, description="Return the performance metrics in the body as well as in the headers."
    )
    return_last_activation: bool | None = Field(
        False,
        description="Fill `last_activation` in the log-probabilities: base64 of the little-endian float32 vector that"
        " the last layer, after the final norm, had where the token was predicted. Needs `logprobs: true`.",
    )
    include_routing_matrix: bool | None = Field(
        False,
        description="Fill `routing_matrix` in the log-probabilities, those of echoed tokens too: base64 of a uint8"
        " array [MoE layers, experts per token] of the experts where the token was predicted (little-endian int16 where"
        " a model has more than 256). Needs `logprobs: true`.",
    )
    safe_tokenization: bool | None = Field(
        None,
        description="Whether special tokens that the caller's texts spell out are ordinary text: `true` in prompts,"
        " messages, calls and tools, `false` nowhere; by default in messages of users and tools only.",
    )
    user: str | None = Field(None, description="Identifies the end user in the request log, which shows its beginning.")
    metadata: dict[str, str] | None = Field(
        None, description="Up to 64 entries; the first 16 are written to the request log, shortened."
    )
    service_tier: Literal["auto", "default", "flex", "priority"] | None = Field(
        None, description="`priority` is served before all others that wait; these are alike."
    )
    store: bool | None = Field(None, description="This server keeps no outputs: `false` says so, `true` is refused.")
    response_format: ResponseFormat | None = Field(None, description="Forces the output into a format.")
    reasoning_effort: Effort | Annotated[int, Field(ge=1), integral] | bool | None = Field(
        None,
        description="How much the model reasons before it answers; a number caps the reasoning tokens. `minimal`,"
        " `xhigh` and `max` mean the nearest level that the model has.",
    )
    thinking: Annotated[ThinkingConfigEnabled | ThinkingConfigDisabled, Field(discriminator="type")] | None = Field(
        None, description="Reasoning in Anthropic's form; excludes `reasoning_effort`."
    )
    speculation: str | list[TokenId] | None = Field(
        None, description="Text or tokens the output may resemble: where it does, the same output comes sooner."
    )
    prediction: PredictedOutput | str | None = Field(None, description="The same in OpenAI's form; not both.")

    @property
    def echoes(self) -> bool:
        """Whether any of the prompt is returned."""
        return bool(self.echo) or bool(self.echo_last)

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities were asked for, in either format."""
        return self.logprobs is not None and self.logprobs is not False


class ChatCompletionRequest(ChatClientFields, GenerationRequest):
    """Body of `POST /v1/chat/completions`."""

    endpoint = "chat"
    prompt_field = "messages"

    messages: list[ChatMessage] = Field(
        min_length=1, description="The conversation so far.", examples=[[{"role": "user", "content": "Hello!"}]]
    )
    tools: list[ChatCompletionTool] = Field(default_factory=list, description="Tools the model may call.")
    tool_choice: Literal["auto", "none", "any", "required"] | FunctionSelection | AllowedTools = Field(
        "auto", description="Whether a tool must, may or must not be called; or which one, or which ones."
    )
    parallel_tool_calls: bool | None = Field(
        None, description="Whether several tools may be called at once. Means nothing without `tools`."
    )
    functions: list[ChatCompletionFunction] = Field(
        default_factory=list, description="Older form of `tools`.", json_schema_extra={"deprecated": True}
    )
    function_call: Literal["auto", "none"] | FunctionNameSpec | None = Field(
        None, description="Older form of `tool_choice`.", json_schema_extra={"deprecated": True}
    )
    reasoning_history: Literal["disabled", "interleaved", "preserved"] | None = Field(
        None, description="Which reasoning of earlier messages the model sees."
    )


def _check_prompt(value: Any, handler: Any) -> Any:
    """One error that says what a prompt may be, instead of one for each item and alternative."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise PydanticCustomError(
            "prompt", "must be a string or a non-empty array of strings, token ids or token id arrays"
        )
    for allowed in (_all_strings, _token_ids, _token_id_lists):
        checked = allowed(value)
        if checked is not None:
            return checked
    raise PydanticCustomError("prompt", "an array must hold only strings, only token ids, or only arrays of token ids")


def _all_strings(items: list[Any]) -> list[str] | None:
    return items if all(isinstance(item, str) for item in items) else None


def _token_ids(items: list[Any]) -> list[int] | None:
    if all(type(item) is int and item >= 0 for item in items):
        return items
    whole = [whole_number(item) for item in items]
    return whole if all(type(item) is int and item >= 0 for item in whole) else None


def _token_id_lists(items: list[Any]) -> list[list[int]] | None:
    lists = [_token_ids(item) if isinstance(item, list) else None for item in items]
    return [item for item in lists if item is not None] if None not in lists else None


Prompt = Annotated[str | list[str] | list[TokenId] | list[list[TokenId]], WrapValidator(_check_prompt)]


class CompletionRequest(CompletionClientFields, GenerationRequest):
    """Body of `POST /v1/completions`."""

    endpoint = "completions"
    prompt_field = "prompt"

    prompt: Prompt = Field(
        description="The prompt, or several: a string, strings, token ids, or arrays of token ids.",
        examples=["Once upon a time", [1, 2, 3]],
    )
    images: list[str] | None = Field(
        None,
        description="Images as base64 data URLs (http(s) URLs where the server fetches them), one for each `<image>` of"
        " a prompt or placeholder of the model's own, in text or token ids. In order, of several prompts one after the"
        " other.",
    )
