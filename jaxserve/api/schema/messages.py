"""Messages of a conversation, as requests state them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from jaxserve.api.schema.base import NO_EFFECT, CacheControl, StrictModel

Role = Literal["system", "user", "assistant", "tool", "developer", "function"]


class ChatMessageContentImageURL(StrictModel):
    """Where an image is."""

    url: str = Field(
        description="A data URL with the image, base64: png, jpeg, gif, bmp, tiff, ppm or webp; an http(s) URL where"
        " the server fetches them."
    )
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="Wanted resolution; `low` shows at most the pixels of 512 x 512."
    )


class ChatMessageContentVideoURL(StrictModel):
    """Where a video is, and how it is to be read."""

    url: str = Field(description="A data URL with the video, base64.")
    detail: str | None = Field(None, description="Wanted resolution: auto, low or high.")
    max_frames: int | None = Field(None, description="Most frames to look at.")
    sample_fps: float | None = Field(None, description="Frames to look at in each second.")
    spatial_limit: int | None = Field(None, description="Most pixels of a frame.")


class ChatMessageContent(StrictModel):
    """One part of a message's content."""

    type: Literal["text", "refusal", "image_url", "video_url"] = Field(description="Kind of part.")
    text: str | None = Field(None, description="The text of a text part.")
    refusal: str | None = Field(None, description="The text of a refusal part, which the model reads as text.")
    image_url: ChatMessageContentImageURL | None = Field(None, description="The image of an image part.")
    video_url: ChatMessageContentVideoURL | None = Field(None, description="The video of a video part.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)

    @model_validator(mode="after")
    def _matches_type(self) -> ChatMessageContent:
        given = {name for name in ("text", "refusal", "image_url", "video_url") if getattr(self, name) is not None}
        if given != {self.type}:
            raise PydanticCustomError(
                "content_part", "a part of type {kind} needs {kind} and nothing else", {"kind": self.type}
            )
        return self


class ChatCompletionMessageToolCallFunction(StrictModel):
    """A call the model made earlier."""

    carried = frozenset({"parsed_arguments"})

    name: str | None = Field(None, description="Name of the called function.")
    arguments: str | dict[str, Any] | None = Field(None, description="Arguments, as JSON text or as an object.")


class ChatCompletionMessageToolCall(StrictModel):
    """A tool call in an assistant message."""

    carried = frozenset({"index"})

    id: str | None = Field(None, description="Id of the call, which the tool's answer repeats.")
    type: str = Field("function", description="Kind of tool; only `function` exists.")
    function: ChatCompletionMessageToolCallFunction | str = Field(description="What was called.")


class ChatMessage(StrictModel):
    """One message of the conversation."""

    carried = frozenset({"parsed", "annotations"})

    role: Role = Field(
        description="Who speaks. `developer` means `system`; `function` is the older form of `tool`.", examples=["user"]
    )
    content: str | list[ChatMessageContent] | None = Field(
        None,
        description="The message; several text parts are joined by newlines. Null only for assistant messages that call"
        " tools, reason or refuse.",
        examples=["Hello!"],
    )
    reasoning_content: str | None = Field(None, description="Reasoning of an earlier assistant message.")
    reasoning: str | None = Field(None, description="Another name of `reasoning_content`, which goes before it.")
    refusal: str | None = Field(None, description="What an assistant message says where its content is null.")
    tool_calls: list[ChatCompletionMessageToolCall] | None = Field(None, description="Calls the assistant made.")
    function_call: ChatCompletionMessageToolCallFunction | None = Field(
        None, description="Older form of `tool_calls`: the one call the assistant made."
    )
    tool_call_id: str | None = Field(None, description="Which call a `tool` message answers.")
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] | None = Field(
        None, description="Name of the author, for templates that show it."
    )

    @model_validator(mode="after")
    def _has_content(self) -> ChatMessage:
        said = (self.tool_calls, self.function_call, self.reasoning_content, self.reasoning, self.refusal)
        excused = self.role == "assistant" and any(part is not None and part != [] for part in said)
        if self.content is None and not excused:
            raise PydanticCustomError(
                "missing_content", "content is required for a {role} message", {"role": self.role}
            )
        return self

    @property
    def text(self) -> str:
        """The text parts, joined by newlines (as vLLM joins them)."""
        if isinstance(self.content, str):
            return self.content
        if self.content is None:
            return self.refusal or ""
        return "\n".join(part.text or part.refusal or "" for part in self.content)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls the assistant made, in either form, as templates read them."""
        if self.function_call is not None and not self.tool_calls:
            return [{"type": "function", "function": self.function_call.model_dump(exclude_none=True)}]
        return [call.model_dump(exclude_none=True) for call in self.tool_calls or ()]


class PredictedOutput(StrictModel):
    """Text the output is expected to resemble."""

    content: str | list[ChatMessageContent] = Field(description="The expected text.")
    type: Literal["content"] = Field("content", description="Kind of prediction; only content exists.")
