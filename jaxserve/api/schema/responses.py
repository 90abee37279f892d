"""Everything the server sends, as typed dictionaries: built and serialised at the cost of plain ones.

Absent keys mean null. `finish_reason` is always there, because clients index it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

FUNCTION_CALL = "The call, instead of `tool_calls` where the request has `functions`."
FinishReason = Literal["stop", "length", "function_call", "tool_calls"]
_closed = with_config(extra="forbid")
"""No key beyond the declared ones."""


@_closed
class PromptTokensDetails(TypedDict):
    """Where the prompt's tokens came from."""

    cached_tokens: NotRequired[Annotated[int | None, Field(description="Prompt tokens served from the prefix cache.")]]


@_closed
class CompletionTokensDetails(TypedDict):
    """What became of the request's prediction."""

    accepted_prediction_tokens: Annotated[int, Field(description="Predicted tokens that came without a step each.")]
    rejected_prediction_tokens: Annotated[int, Field(description="Predicted tokens that were tried and wrong.")]


@_closed
class UsageInfo(TypedDict):
    """Tokens of a request; a prompt counts once, however many choices it has."""

    prompt_tokens: Annotated[int, Field(description="Tokens of all prompts.")]
    total_tokens: Annotated[int, Field(description="prompt_tokens + completion_tokens.")]
    completion_tokens: NotRequired[Annotated[int | None, Field(description="Generated tokens of all choices.")]]
    prompt_tokens_details: NotRequired[Annotated[PromptTokensDetails | None, Field(description="Cached share.")]]
    completion_tokens_details: NotRequired[
        Annotated[CompletionTokensDetails | None, Field(description="With `speculation` or `prediction`.")]
    ]


@_closed
class LogProbs(TypedDict):
    """Log-probabilities in the legacy format: parallel arrays, one entry for each token."""

    tokens: NotRequired[Annotated[list[str], Field(description="Text of each token.")]]
    token_logprobs: NotRequired[
        Annotated[list[float | None], Field(description="Natural log; null for the first token of an echoed prompt.")]
    ]
    top_logprobs: NotRequired[
        Annotated[list[dict[str, float]] | None, Field(description="Most likely tokens at each position.")]
    ]
    text_offset: NotRequired[
        Annotated[list[int], Field(description="Where each token starts in the returned text, in characters.")]
    ]
    token_ids: NotRequired[Annotated[list[int] | None, Field(description="Id of each token.")]]


@_closed
class NewLogProbsContentTopLogProbs(TypedDict):
    """One alternative at a position."""

    token: str
    logprob: float
    token_id: int
    bytes: NotRequired[list[int]]


@_closed
class NewLogProbsContent(TypedDict):
    """One token in OpenAI's newer format."""

    token: Annotated[str, Field(description="Text of the token; broken characters as U+FFFD.")]
    logprob: Annotated[float, Field(description="Natural log, raw model; 0 for the first token of an echoed prompt.")]
    sampling_logprob: Annotated[
        float | None, Field(description="Under the distribution drawn from; null for prompt tokens.")
    ]
    bytes: Annotated[list[int], Field(description="The token's bytes.")]
    top_logprobs: NotRequired[list[NewLogProbsContentTopLogProbs]]
    token_id: int
    text_offset: Annotated[int, Field(description="Where the token starts in the returned text, in characters.")]
    last_activation: NotRequired[Annotated[str | None, Field(description="See `return_last_activation`.")]]
    routing_matrix: NotRequired[Annotated[str | None, Field(description="See `include_routing_matrix`.")]]


@_closed
class NewLogProbs(TypedDict):
    """Log-probabilities in OpenAI's newer format."""

    content: NotRequired[list[NewLogProbsContent]]


AnyLogProbs = LogProbs | NewLogProbs


class RawOutputBase(TypedDict):
    """What the model really read and wrote, but for the log-probabilities."""

    prompt_fragments: Annotated[
        list[str | int], Field(description="The prompt in pieces (messages, or token ids as given), after eviction.")
    ]
    prompt_token_ids: Annotated[list[int], Field(description="The prompt as the model saw it.")]
    completion: Annotated[
        str, Field(description="The echo, then the output with its special tokens, before anything is parsed.")
    ]
    completion_token_ids: NotRequired[
        Annotated[
            list[int] | None,
            Field(description="Tokens of `completion`; like `completion_logprobs`, they begin with what is echoed."),
        ]
    ]
    images: NotRequired[Annotated[list[str] | None, Field(description="Images of the prompt.")]]
    videos: NotRequired[Annotated[list[str] | None, Field(description="Videos of the prompt; never set here.")]]
    grammar: NotRequired[Annotated[str | None, Field(description="Grammar that constrained the output.")]]


@_closed
class RawOutput(RawOutputBase):
    """What the model really read and wrote."""

    completion_logprobs: NotRequired[Annotated[NewLogProbs | None, Field(description="When logprobs was set.")]]


@_closed
class CompletionLogProbsContent(NewLogProbsContent):
    """One token, as the completions endpoint documents it."""

    extra_tokens: NotRequired[Annotated[list[int] | None, Field(description="Documented; never set here.")]]
    extra_logprobs: NotRequired[Annotated[list[float] | None, Field(description="Documented; never set here.")]]


@_closed
class CompletionNewLogProbs(TypedDict):
    """Log-probabilities in OpenAI's newer format, on the completions endpoint."""

    content: NotRequired[list[CompletionLogProbsContent]]


@_closed
class CompletionRawOutput(RawOutputBase):
    """What the model really read and wrote, on the completions endpoint."""

    completion_logprobs: NotRequired[
        Annotated[CompletionNewLogProbs | None, Field(description="When logprobs was set.")]
    ]


@_closed
class ToolCallFunction(TypedDict):
    """What the model calls."""

    name: NotRequired[str | None]
    arguments: NotRequired[str | dict[str, Any] | None]


@_closed
class ToolCall(TypedDict):
    """A tool call of the model."""

    id: NotRequired[str | None]
    type: NotRequired[str]
    function: ToolCallFunction | str


@_closed
class DeltaToolCall(TypedDict):
    """What a chunk adds to a tool call: id and name first, then the arguments as they come."""

    index: NotRequired[Annotated[int, Field(description="Which of the message's calls.")]]
    id: NotRequired[str | None]
    type: NotRequired[str]
    function: ToolCallFunction | str


@_closed
class ImageURL(TypedDict):
    """Where an image is."""

    url: str
    detail: NotRequired[str | None]


@_closed
class ContentPart(TypedDict):
    """A part of a message's content; generated messages are plain text."""

    type: str
    text: NotRequired[str | None]
    image_url: NotRequired[ImageURL | None]


@_closed
class ResponseMessage(TypedDict):
    """The generated message."""

    role: str
    content: NotRequired[str | list[ContentPart] | None]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCall] | None]
    function_call: NotRequired[Annotated[ToolCallFunction | None, Field(description=FUNCTION_CALL)]]
    tool_call_id: NotRequired[str | None]


@_closed
class DeltaMessage(TypedDict):
    """What a chunk adds to the message."""

    role: NotRequired[str | None]
    content: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[DeltaToolCall] | None]
    function_call: NotRequired[Annotated[ToolCallFunction | None, Field(description=FUNCTION_CALL)]]


@_closed
class ChatChoice(TypedDict):
    """A finished choice of a chat response."""

    index: int
    message: ResponseMessage
    finish_reason: NotRequired[str | None]
    logprobs: NotRequired[AnyLogProbs | None]
    raw_output: NotRequired[RawOutput | None]
    token_ids: NotRequired[list[int] | None]


@_closed
class ChatStreamChoice(TypedDict):
    """A piece of one choice."""

    index: int
    delta: DeltaMessage
    finish_reason: NotRequired[FinishReason | None]
    logprobs: NotRequired[AnyLogProbs | None]
    raw_output: NotRequired[RawOutput | None]
    prompt_token_ids: NotRequired[list[int] | None]
    token_ids: NotRequired[list[int] | None]


@_closed
class ChatCompletionResponse(TypedDict):
    """Answer of `POST /v1/chat/completions`."""

    id: str
    object: NotRequired[Literal["chat.completion"]]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: NotRequired[UsageInfo | None]
    perf_metrics: NotRequired[dict[str, Any] | None]
    prompt_token_ids: NotRequired[list[int] | None]


@_closed
class ChatCompletionStreamResponse(TypedDict):
    """One chunk of a streamed chat response."""

    id: str
    object: NotRequired[Literal["chat.completion.chunk"]]
    created: int
    model: str
    choices: list[ChatStreamChoice]
    usage: NotRequired[UsageInfo | None]
    perf_metrics: NotRequired[dict[str, Any] | None]
    prompt_token_ids: NotRequired[list[int] | None]


@_closed
class CompletionChoice(TypedDict):
    """A choice of a completions response; in a stream, a piece of one."""

    index: int
    text: str
    logprobs: NotRequired[LogProbs | CompletionNewLogProbs | None]
    finish_reason: NotRequired[FinishReason | None]
    raw_output: NotRequired[CompletionRawOutput | None]
    prompt_token_ids: NotRequired[list[int] | None]
    token_ids: NotRequired[list[int] | None]


@_closed
class CompletionResponse(TypedDict):
    """Answer of `POST /v1/completions`."""

    id: str
    object: NotRequired[Literal["text_completion"]]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageInfo
    perf_metrics: NotRequired[dict[str, Any] | None]


@_closed
class CompletionStreamResponse(TypedDict):
    """One chunk of a streamed completions response."""

    id: str
    object: NotRequired[Literal["text_completion"]]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: NotRequired[UsageInfo | None]
    perf_metrics: NotRequired[dict[str, Any] | None]


@_closed
class ModelCard(TypedDict):
    """One served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: Annotated[int, Field(description="Prompt plus output tokens.")]
    vocab_size: Annotated[int, Field(description="Token ids lie below it.")]
    supports_chat: bool
    supports_tools: bool
    supports_image_input: bool
    features: Annotated[list[str], Field(description="Request fields beyond the plain ones that have their effect.")]
    sampling_defaults: Annotated[
        dict[str, float], Field(description="Values of the sampling fields that a request leaves open.")
    ]


@_closed
class ModelList(TypedDict):
    """Answer of `GET /v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]


@_closed
class ErrorInfo(TypedDict):
    """What went wrong, as the client libraries read it."""

    message: str
    type: str
    param: str | None
    code: str | None


@_closed
class ValidationDetail(TypedDict):
    """One finding of validation."""

    loc: list[str | int]
    msg: str
    type: str


@_closed
class ErrorResponse(TypedDict):
    """Every refusal and failure."""

    type: NotRequired[Annotated[Literal["error"], Field(description="On the routes of Anthropic's messages.")]]
    error: ErrorInfo
    detail: NotRequired[list[ValidationDetail]]


@_closed
class Status(TypedDict):
    """Answer of the probes."""

    status: str
