"""How many tokens a request may generate, and whether its prompts fit."""

from __future__ import annotations

from collections.abc import Sequence

from jaxserve.api.prompt_tokens import PromptTokens
from jaxserve.api.schema.requests import GenerationRequest
from jaxserve.api.settings import Settings
from jaxserve.errors import ContextLengthExceeded, InvalidRequest


def token_budgets(request: GenerationRequest, prompts: Sequence[PromptTokens], settings: Settings) -> list[int]:
    """Tokens to generate after each prompt: as asked, lowered to fit the context.

    Raises:
        ContextLengthExceeded: a prompt fills the context, or the output doesn't fit and the caller wants that refused.
        InvalidRequest: a prompt has a token that the model lacks; or all prompts together, or all outputs, are more
            than this server takes.
    """
    field, limits = request.prompt_field, settings.limits
    for index, prompt in enumerate(prompts):
        place = field if len(prompts) == 1 else f"{field}.{index}"
        _check_known(place, prompt, settings.model.vocab_size)
        _check_fits(place, prompt, settings.model.context_length, generates=_asked(request) != 0)
    total = limits.max_prompt_tokens
    if total is not None and sum(len(prompt.ids) for prompt in prompts) > total:
        raise InvalidRequest(field, f"{field}: more than this server's limit of {total} prompt tokens")
    budgets = [_budget(request, len(prompt.ids), settings) for prompt in prompts]
    if request.n * sum(budgets) > limits.max_generated_tokens:
        raise InvalidRequest(
            "max_tokens",
            f"max_tokens: n x max_tokens exceeds this server's {limits.max_generated_tokens} tokens",
        )
    return budgets


def _check_known(where: str, prompt: PromptTokens, vocab_size: int) -> None:
    """A tokenizer may have more tokens than the model has embeddings (an image token, one for padding)."""
    unknown = next((token for token in prompt.ids if token >= vocab_size), None)
    if unknown is not None:
        raise InvalidRequest(
            where,
            f"{where}: token {unknown} of the tokenizer is outside the model's vocabulary (0 to {vocab_size - 1})",
        )


def _check_fits(where: str, prompt: PromptTokens, context: int, *, generates: bool) -> None:
    if len(prompt.ids) + generates > context:
        raise ContextLengthExceeded(
            where,
            f"{where}: the prompt has {len(prompt.ids)} tokens; the model's context holds {context}"
            + " with at least one for the output" * generates,
        )


def _asked(request: GenerationRequest) -> int | None:
    return request.max_tokens if request.max_tokens is not None else request.max_completion_tokens


def _budget(request: GenerationRequest, prompt_tokens: int, settings: Settings) -> int:
    asked = _asked(request)
    context = settings.model.context_length
    room = context - prompt_tokens
    if asked is None:
        chat = request.endpoint == "chat"
        return min(settings.max_tokens(chat=chat), room)
    if asked > room and request.context_length_exceeded_behavior == "error":
        name = "max_tokens" if request.max_tokens is not None else "max_completion_tokens"
        raise ContextLengthExceeded(
            name,
            f"{name}: {asked} plus {prompt_tokens} tokens of {request.prompt_field} exceed the context of {context}",
        )
    return min(asked, room)
