"""The body of `POST /v1/responses`: OpenAI's responses, as far as they have a meaning without a store and hosted tools.

A type with one value is a field whose default clients spell out: that value asks for nothing, others are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from jaxserve.api.schema.base import StrictModel, integral
from jaxserve.api.schema.requests import Effort
from jaxserve.api.schema.tools import FunctionName


class InputText(StrictModel):
    """A text; `output_text` and `refusal` are those of earlier answers."""

    carried = frozenset({"annotations", "logprobs"})

    type: Literal["input_text", "output_text", "text"] = Field(description="Kind of part.")
    text: str = Field(description="The text.")


class Refusal(StrictModel):
    """A refusal of an earlier answer."""

    type: Literal["refusal"] = Field(description="Kind of part.")
    refusal: str = Field(description="The text.")


class InputImage(StrictModel):
    """An image."""

    type: Literal["input_image"] = Field(description="Kind of part.")
    image_url: str = Field(description="Where it is: a data URL, or an http(s) URL where the server fetches them.")
    detail: Literal["low", "high", "auto", "original"] | None = Field(None, description="Wanted resolution.")


Part = Annotated[InputText | Refusal | InputImage, Field(discriminator="type")]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputMessage(StrictModel):
    """A message."""

    carried = frozenset({"id", "phase"})

    type: Literal["message"] = Field("message", description="Kind of item.")
    role: Literal["user", "assistant", "system", "developer"] = Field(description="Who speaks.")
    content: str | list[Part] = Field(description="What is said.")
    status: ItemStatus | None = Field(None, description="Of an earlier answer; tells the model nothing.")


class FunctionCall(StrictModel):
    """A call of an earlier answer."""

    carried = frozenset({"id", "caller", "namespace", "parsed_arguments"})

    type: Literal["function_call"] = Field(description="Kind of item.")
    call_id: str = Field(description="Id of the call.")
    name: str = Field(description="What was called.")
    arguments: str = Field(description="Arguments, as JSON.")
    status: ItemStatus | None = Field(None, description="Tells the model nothing.")


class FunctionCallOutput(StrictModel):
    """What a call gave."""

    carried = frozenset({"id", "caller"})

    type: Literal["function_call_output"] = Field(description="Kind of item.")
    call_id: str = Field(description="Which call.")
    output: str | list[Part] = Field(description="The result.")
    status: ItemStatus | None = Field(None, description="Tells the model nothing.")


class ReasoningText(StrictModel):
    """A part of the reasoning."""

    type: Literal["reasoning_text", "summary_text"] = Field(description="Kind of part.")
    text: str = Field(description="The text.")


class Reasoning(StrictModel):
    """Reasoning of an earlier answer."""

    carried = frozenset({"id", "encrypted_content"})

    type: Literal["reasoning"] = Field(description="Kind of item.")
    summary: list[ReasoningText] = Field(default_factory=list, description="Read where there is no content.")
    content: list[ReasoningText] | None = Field(None, description="The reasoning.")
    status: ItemStatus | None = Field(None, description="Tells the model nothing.")


Item = InputMessage | FunctionCall | FunctionCallOutput | Reasoning


class FunctionTool(StrictModel):
    """A function of the client's. Tools that a server runs are refused by their type."""

    type: Literal["function"] = Field(description="Kind of tool.")
    name: FunctionName = Field(description="Its name.")
    description: str | None = Field(None, description="What it does.")
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema of its arguments.")
    strict: bool | None = Field(None, description="Constrain the arguments to their schema.")


class NamedTool(StrictModel):
    """One of the tools."""

    type: Literal["function"] = Field(description="Kind of tool.")
    name: str = Field(description="Its name.")


class AllowedTools(StrictModel):
    """Some of the tools."""

    type: Literal["allowed_tools"] = Field(description="Says that this is a restriction.")
    mode: Literal["auto", "required"] = Field(description="`required`: one of them must be called.")
    tools: Annotated[list[NamedTool], Field(min_length=1)] = Field(description="Which.")


class TextFormat(StrictModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = Field(description="Kind of form.")
    name: str | None = Field(None, description="Of the schema.")
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="The schema.")
    strict: bool | None = Field(None, description="Schemas are enforced in any case.")
    description: str | None = Field(None, description="Tells the model nothing.")


class TextConfig(StrictModel):
    """What is wanted of the answer's text."""

    format: TextFormat | None = Field(None, description="Its form.")
    verbosity: Literal["medium"] | None = Field(None, description="How long answers are is the model's business.")


class ReasoningConfig(StrictModel):
    """How much the model reasons."""

    effort: Effort | None = Field(None, description="As `reasoning_effort` of chat completions.")
    summary: Literal["auto"] | None = Field(None, description="All of the reasoning is returned.")


class StreamOptions(StrictModel):
    """Options of a stream."""

    include_obfuscation: Literal[False] | None = Field(None, description="Events are never padded.")


class ResponsesRequest(StrictModel):
    """Body of `POST /v1/responses`."""

    model: str = Field(min_length=1, description="Name of the served model.")
    input: str | Annotated[list[Item], Field(min_length=1)] = Field(description="The conversation so far.")
    instructions: str | None = Field(None, description="A system message in front of it.")
    max_output_tokens: Annotated[int, Field(ge=1), integral] | None = Field(
        None, description="Most tokens to generate."
    )
    stream: bool | None = Field(None, description="Send the answer as events while it is generated.")
    stream_options: StreamOptions | None = Field(None, description="Options of a stream.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="As in chat completions.")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="As in chat completions.")
    tools: list[FunctionTool] | None = Field(None, description="Tools the model may call.")
    tool_choice: Literal["auto", "none", "required"] | NamedTool | AllowedTools | None = Field(
        None, description="Whether and which tools are called."
    )
    parallel_tool_calls: bool | None = Field(None, description="Whether several tools may be called at once.")
    text: TextConfig | None = Field(None, description="What is wanted of the answer's text.")
    reasoning: ReasoningConfig | None = Field(None, description="How much the model reasons.")
    include: list[Literal["reasoning.encrypted_content"]] | None = Field(
        None, description="Reasoning is returned as it is; the other things that can be included don't exist here."
    )
    metadata: dict[str, str] | None = Field(None, description="As in chat completions; the answer repeats it.")
    user: str | None = Field(None, description="As in chat completions.")
    safety_identifier: str | None = Field(None, description="As in chat completions.")
    service_tier: Literal["auto", "default", "flex", "priority"] | None = Field(None, description="As there.")
    prompt_cache_key: str | None = Field(None, description="As in chat completions.")
    prompt_cache_retention: Literal["in_memory", "in-memory"] | None = Field(None, description="As there.")
    truncation: Literal["disabled"] | None = Field(None, description="Conversations that don't fit are refused.")
    store: Literal[False] | None = Field(None, description="No answer is stored.")
    background: Literal[False] | None = Field(None, description="Answers come with the request.")
