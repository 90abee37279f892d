"""Bodies of `POST /v1/tokenize` and `/v1/detokenize`, in vLLM's form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from jaxserve.api.schema.base import StrictModel, TokenId


class TokenizeRequest(StrictModel):
    """A text, or a conversation, whose tokens are wanted."""

    model: str = Field(min_length=1, description="Name of the served model.")
    prompt: str | None = Field(None, description="A text.")
    messages: list[Any] | None = Field(None, description="A conversation, as in chat completions.")
    tools: list[Any] | None = Field(None, description="Its tools.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="As in chat completions.")
    add_special_tokens: bool | None = Field(
        None, description="Whether a text gets what the tokenizer puts before every text. Default: true."
    )
    add_generation_prompt: Literal[True] | None = Field(
        None, description="A conversation ends where the answer begins."
    )
    return_token_strs: bool | None = Field(None, description="Return the tokens' texts too.")

    @model_validator(mode="after")
    def _one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_text", "needs either prompt or messages")
        return self


class DetokenizeRequest(StrictModel):
    """Tokens whose text is wanted."""

    model: str = Field(min_length=1, description="Name of the served model.")
    tokens: list[TokenId] = Field(description="Token ids.")
