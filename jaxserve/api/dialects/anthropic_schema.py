"""The body of `POST /v1/messages`: Anthropic's messages, as far as they have a meaning here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from jaxserve.api.schema.base import NO_EFFECT, CacheControl, StrictModel, integral
from jaxserve.api.schema.tools import FunctionName


class TextBlock(StrictModel):
    """A text."""

    carried = frozenset({"citations"})

    type: Literal["text"] = Field(description="Kind of block.")
    text: str = Field(description="The text.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)


class Base64Source(StrictModel):
    """An image in the request."""

    type: Literal["base64"] = Field(description="Kind of source.")
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"] = Field(description="Its type.")
    data: str = Field(description="The image, base64.")


class UrlSource(StrictModel):
    """An image elsewhere."""

    type: Literal["url"] = Field(description="Kind of source.")
    url: str = Field(description="Where it is.")


class ImageBlock(StrictModel):
    """An image."""

    type: Literal["image"] = Field(description="Kind of block.")
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")] = Field(description="The image.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)


class ThinkingBlock(StrictModel):
    """Reasoning of an earlier answer."""

    carried = frozenset({"signature"})

    type: Literal["thinking"] = Field(description="Kind of block.")
    thinking: str = Field(description="The reasoning.")


class ToolUseBlock(StrictModel):
    """A call of an earlier answer."""

    carried = frozenset({"caller"})

    type: Literal["tool_use"] = Field(description="Kind of block.")
    id: str = Field(description="Id of the call.")
    name: str = Field(description="What was called.")
    input: dict[str, Any] = Field(description="Arguments.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)


Shown = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class ToolResultBlock(StrictModel):
    """What a call gave."""

    type: Literal["tool_result"] = Field(description="Kind of block.")
    tool_use_id: str = Field(description="Which call.")
    content: str | list[Shown] | None = Field(None, description="The result.")
    is_error: bool | None = Field(None, description="Whether the call failed: the model reads `Error:` before it.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)


Block = Annotated[TextBlock | ImageBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class Message(StrictModel):
    """One message."""

    role: Literal["user", "assistant"] = Field(description="Who speaks.")
    content: str | list[Block] = Field(description="What is said.")


class Tool(StrictModel):
    """A tool of the client's. Tools that a server runs are refused by their type."""

    type: Literal["custom"] | None = Field(None, description="Kind of tool.")
    name: FunctionName = Field(description="Its name.")
    description: str | None = Field(None, description="What it does.")
    input_schema: dict[str, Any] = Field(description="JSON Schema of its input.")
    strict: bool | None = Field(None, description="Constrain the input to its schema.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)
    eager_input_streaming: bool | None = Field(None, description="Input is streamed as it comes in any case.")


class ToolChoice(StrictModel):
    """Whether and which tools are called."""

    type: Literal["auto", "any", "tool", "none"] = Field(description="`any`: one must be called; `tool`: this one.")
    name: str | None = Field(None, description="The tool, of type `tool`.")
    disable_parallel_tool_use: bool | None = Field(None, description="One call at most.")


class Thinking(StrictModel):
    """Whether the model reasons."""

    type: Literal["enabled", "disabled"] = Field(description="On or off.")
    budget_tokens: Annotated[int, Field(ge=1024), integral] | None = Field(None, description="Most reasoning tokens.")


class OutputFormat(StrictModel):
    """A form that the answer has to have."""

    type: Literal["json_schema"] = Field(description="Kind of form.")
    schema_: dict[str, Any] = Field(alias="schema", description="The schema.")


class OutputConfig(StrictModel):
    """What is wanted of the answer."""

    format: OutputFormat | None = Field(None, description="Its form.")
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(None, description="How much to reason.")


class Metadata(StrictModel):
    """About the request."""

    user_id: str | None = Field(None, description="Identifies the end user in the request log.")


class CountTokensRequest(StrictModel):
    """Body of `POST /v1/messages/count_tokens`."""

    model: str = Field(min_length=1, description="Name of the served model.")
    messages: Annotated[list[Message], Field(min_length=1)] = Field(description="The conversation so far.")
    system: str | list[TextBlock] | None = Field(None, description="The system prompt.")
    tools: list[Tool] | None = Field(None, description="Tools the model may call.")
    tool_choice: ToolChoice | None = Field(None, description="Whether and which tools are called.")
    thinking: Thinking | None = Field(None, description="Whether the model reasons.")
    output_config: OutputConfig | None = Field(None, description="What is wanted of the answer.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)


class MessagesRequest(CountTokensRequest):
    """Body of `POST /v1/messages`."""

    max_tokens: Annotated[int, Field(ge=1), integral] | None = Field(None, description="Most tokens of the answer.")
    metadata: Metadata | None = Field(None, description="About the request.")
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, description="Up to 4 texts that end the answer."
    )
    stream: bool | None = Field(None, description="Send the answer as events while it is generated.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="As in chat completions.")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="As in chat completions.")
    top_k: Annotated[int, Field(ge=0, le=100), integral] | None = Field(None, description="As in chat completions.")
    service_tier: Literal["auto", "standard_only"] | None = Field(None, description="Both mean the same here.")
    raw_output: bool | None = Field(None, description="Return what the model really read and wrote.")
