"""Messages of a conversation, as requests state them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from jaxserve.api.schema.base import StrictModel

Role = Literal["system", "user", "assistant", "tool", "developer"]


class ChatMessageContentImageURL(StrictModel):
    """Where an image is."""

    url: str = Field(description="A data URL with the image, base64.")
    detail: str | None = Field(None, description="Wanted resolution: auto, low or high.")


class ChatMessageContent(StrictModel):
    """One part of a message's content."""

    type: Literal["text", "image_url"] = Field(description="Kind of part.")
    text: str | None = Field(None, description="The text of a text part.")
    image_url: ChatMessageContentImageURL | None = Field(None, description="The image of an image part.")

    @model_validator(mode="after")
    def _matches_type(self) -> ChatMessageContent:
        given = {name for name in ("text", "image_url") if getattr(self, name) is not None}
        if given != {self.type}:
            raise PydanticCustomError(
                "content_part", "a part of type {kind} needs {kind} and nothing else", {"kind": self.type}
            )
        return self


class ChatCompletionMessageToolCallFunction(StrictModel):
    """A call the model made earlier."""

    name: str | None = Field(None, description="Name of the called function.")
    arguments: str | dict[str, Any] | None = Field(None, description="Arguments, as JSON text or as an object.")


class ChatCompletionMessageToolCall(StrictModel):
    """A tool call in an assistant message."""

    id: str | None = Field(None, description="Id of the call, which the tool's answer repeats.")
    type: str = Field("function", description="Kind of tool; only `function` exists.")
    function: ChatCompletionMessageToolCallFunction | str = Field(description="What was called.")


class ChatMessage(StrictModel):
    """One message of the conversation."""

    role: Role = Field(description="Who speaks. `developer` means `system`.", examples=["user"])
    content: str | list[ChatMessageContent] | None = Field(
        None, description="The message; null only for assistant messages that call tools.", examples=["Hello!"]
    )
    reasoning_content: str | None = Field(None, description="Reasoning of an earlier assistant message.")
    tool_calls: list[ChatCompletionMessageToolCall] | None = Field(None, description="Calls the assistant made.")
    tool_call_id: str | None = Field(None, description="Which call a `tool` message answers.")
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = Field(
        None, description="Name of the author, for templates that show it."
    )

    @model_validator(mode="after")
    def _has_content(self) -> ChatMessage:
        excused = self.role == "assistant" and (self.tool_calls or self.reasoning_content is not None)
        if self.content is None and not excused:
            raise PydanticCustomError(
                "missing_content", "content is required for a {role} message", {"role": self.role}
            )
        return self

    @property
    def text(self) -> str:
        """The text parts, joined without a separator (as vision templates join them)."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text or "" for part in self.content)


class PredictedOutput(StrictModel):
    """Text the output is expected to resemble."""

    content: str | list[ChatMessageContent] = Field(description="The expected text.")
    type: Literal["content"] = Field("content", description="Kind of prediction; only content exists.")
