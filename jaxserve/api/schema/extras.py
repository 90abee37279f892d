"""What common clients send beyond the contract, where it has a plain meaning here; everything else is refused by name.

A type with one value is a field whose default clients spell out: that value asks for nothing, others are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from jaxserve.api.schema.base import StrictModel, TokenId, integral
from jaxserve.api.schema.tools import FunctionSelection

_MAX_STOP_IDS = 64
Choices = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=256)]
Schema = str | dict[str, Any]


class StructuredOutputs(StrictModel):
    """What vLLM's clients say instead of `response_format`; one of its fields."""

    json_: Schema | None = Field(None, alias="json", description="As `json_schema` of `response_format`.")
    json_object: Literal[True] | None = Field(None, description="Any JSON object.")
    grammar: str | None = Field(None, description="As `grammar` of `response_format`.")
    choice: Choices | None = Field(None, description="One of these texts.")

    @model_validator(mode="after")
    def _one(self) -> StructuredOutputs:
        if len(self.model_fields_set) != 1:
            raise PydanticCustomError("one_constraint", "needs exactly one of json, json_object, grammar and choice")
        return self


class ClientFields(StrictModel):
    """Of both endpoints."""

    min_tokens: Annotated[int, Field(ge=0), integral] | None = Field(
        None,
        description="Fewest tokens of each choice: before them, neither end-of-sequence tokens nor `stop_token_ids` may"
        " come, unless a grammar allows nothing else. Texts of `stop` end the output all the same.",
    )
    stop_token_ids: Annotated[list[TokenId], Field(max_length=_MAX_STOP_IDS)] | None = Field(
        None, description="Tokens that end the output, beside the model's own. Their text is not part of it."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="`response_format` in vLLM's words: `json`, `json_object`, `grammar` or `choice`."
    )
    guided_json: Schema | None = Field(None, description="The same as `structured_outputs.json`.")
    guided_grammar: str | None = Field(None, description="The same as `structured_outputs.grammar`.")
    guided_choice: Choices | None = Field(None, description="The same as `structured_outputs.choice`.")
    safety_identifier: str | None = Field(None, description="Another name of `user`, which goes before it.")
    prompt_cache_retention: Literal["in_memory", "in-memory"] | None = Field(
        None, description="Cached prompts are kept in memory, until their room is needed."
    )
    best_of: Annotated[int, Field(ge=1), integral] | None = Field(
        None, description="Only the value of `n`: choices are not ranked here."
    )


class ChatClientFields(StrictModel):
    """Of chat completions."""

    chat_template_kwargs: dict[str, Any] | None = Field(
        None,
        description="Variables of the model's chat template. Those that switch reasoning on or off, or set its level,"
        " do what `reasoning_effort` does; what the template doesn't read is refused.",
    )
    verbosity: Literal["medium"] | None = Field(None, description="How long answers are is the model's business.")
    modalities: Annotated[list[Literal["text"]], Field(min_length=1)] | None = Field(
        None, description="Answers are text."
    )


class CompletionClientFields(StrictModel):
    """Of completions."""

    suffix: Literal[""] | None = Field(None, description="Nothing is inserted before a suffix.")


class AllowedToolSet(StrictModel):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"] = Field(description="`required`: one of them must be called.")
    tools: Annotated[list[FunctionSelection], Field(min_length=1)] = Field(description="The tools, by name.")


class AllowedTools(StrictModel):
    """Restricts the calls to some of the tools, all of which the model sees."""

    type: Literal["allowed_tools"] = Field(description="Says that this is a restriction.")
    allowed_tools: AllowedToolSet = Field(description="Which tools may be called.")
