"""What the outputs of a request must look like: response formats as constraints that the engine follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxserve.api.ports import Constrained, TextServices
from jaxserve.api.prompts import PromptTokens
from jaxserve.api.schema.requests import ChatCompletionRequest, GenerationRequest
from jaxserve.engine.types import Request
from jaxserve.errors import InvalidRequest


def constrain(
    request: GenerationRequest, prompts: Sequence[PromptTokens], text: TextServices
) -> list[Constrained | None]:
    """The constraint of each prompt's outputs.

    Raises:
        InvalidRequest: a schema or grammar can't be honoured; names the field and what is wrong.
    """
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return [None] * len(prompts)
    if text.constraints is None:
        raise InvalidRequest("response_format", "response_format: this model has no end-of-sequence token")
    response_format = {key: value for key, value in wanted.model_dump(by_alias=True).items() if value is not None}
    return [
        text.constraints.build(
            response_format,
            prompt=prompt.text,
            chat=isinstance(request, ChatCompletionRequest),
            ignore_eos=request.ignore_eos,
        )
        for prompt in prompts
    ]


def follow(request: Request, constrained: Constrained | None) -> Request:
    """The engine's request, constrained."""
    if constrained is None:
        return request
    stops = tuple(dict.fromkeys((*request.stop_token_ids, *constrained.stop_ids)))
    return replace(request, constraint=constrained.make, stop_token_ids=stops)
