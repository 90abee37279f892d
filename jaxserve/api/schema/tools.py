"""Tools, functions and structured output, as requests state them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from jaxserve.api.schema.base import NO_EFFECT, CacheControl, StrictModel, integral

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class ChatCompletionFunction(StrictModel):
    """A function the model may call."""

    name: FunctionName = Field(description="Name of the function: letters, digits, underscores and dashes, at most 64.")
    description: str | None = Field(None, description="What the function does; the model reads it to choose a call.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="JSON Schema of the arguments, an object schema.",
        examples=[{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}],
    )
    strict: bool | None = Field(None, description="Constrain the generated arguments to `parameters`.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)


class ChatCompletionTool(StrictModel):
    """A tool the model may use."""

    null_means: ClassVar[Mapping[str, str]] = {"type": "function"}

    type: Literal["function"] = Field(description="Kind of tool; only functions exist.")
    function: ChatCompletionFunction | None = Field(None, description="The function; required for function tools.")
    cache_control: CacheControl | None = Field(None, description=NO_EFFECT)

    @model_validator(mode="after")
    def _has_function(self) -> ChatCompletionTool:
        if self.function is None:
            raise PydanticCustomError("missing_function", "a tool of type function needs its function")
        return self


class FunctionNameSpec(StrictModel):
    """Names a function."""

    name: str = Field(description="Name of one of the given functions.")

    @property
    def called(self) -> str:
        """The function to call."""
        return self.name


class FunctionSelection(StrictModel):
    """Forces one function, as `{"type", "function": {"name"}}` or `{"type", "name"}`."""

    type: Literal["function"] = Field(description="Kind of tool; only functions exist.")
    function: FunctionNameSpec | None = Field(None, description="The function to call.")
    name: str | None = Field(None, description="The function to call, in the short form.")

    @model_validator(mode="after")
    def _one_name(self) -> FunctionSelection:
        if (self.function is None) == (self.name is None):
            raise PydanticCustomError("one_name", "give the function's name once: as function.name or as name")
        return self

    @property
    def called(self) -> str:
        """The function to call, in whichever form."""
        return self.function.name if self.function is not None else self.name or ""


class ResponseFormat(StrictModel):
    """Forces the output into a format."""

    type: Literal["json_object", "json_schema", "grammar", "text"] = Field(
        description="`text`: free; `json_object`: any JSON object; `json_schema` and `grammar`: as given."
    )
    schema_: str | dict[str, Any] | None = Field(None, alias="schema", description="JSON Schema for `json_object`.")
    grammar: str | None = Field(None, description="GBNF grammar for `grammar`.")
    json_schema: str | dict[str, Any] | None = Field(None, description="JSON Schema for `json_schema`.")


class ThinkingConfigEnabled(StrictModel):
    """Reasoning on, in Anthropic's form."""

    type: Literal["enabled"] = Field(description="Turns reasoning on.")
    budget_tokens: Annotated[int, Field(ge=1024), integral] | None = Field(None, description="Most reasoning tokens.")


class ThinkingConfigDisabled(StrictModel):
    """Reasoning off, in Anthropic's form."""

    type: Literal["disabled"] = Field(description="Turns reasoning off.")
