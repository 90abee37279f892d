"""What a request expects its output to resemble: `speculation`, or `prediction` in OpenAI's form, as tokens."""

from __future__ import annotations

from jaxserve.api.lengths import check_fits
from jaxserve.api.ports import Tokenizer
from jaxserve.api.schema.messages import PredictedOutput
from jaxserve.api.schema.requests import GenerationRequest
from jaxserve.api.settings import ModelInfo
from jaxserve.errors import ContextLengthExceeded, InvalidRequest


def predicted_tokens(request: GenerationRequest, tokenizer: Tokenizer, model: ModelInfo) -> tuple[int, ...]:
    """The expected output; () = the request says nothing of it.

    It may be longer than `max_tokens` (the text that an output shortens is), but not than the model's context. Tokens
    that the tokenizer has and the model lacks are left out: no output holds them.

    Raises:
        InvalidRequest: both fields are given, a token id is out of range, or a part is no text.
        ContextLengthExceeded: it doesn't fit the context.
    """
    field, given = _given(request)
    if isinstance(given, str):
        special = not request.safe_tokenization
        check_fits(tokenizer, given, model.context_length, field, parse_special=special)
        tokens = tokenizer.encode(given, add_special_tokens=False, parse_special=special)
        return _fitting([token for token in tokens if token < model.vocab_size], field, model)
    for place, token in enumerate(given):
        if token >= model.vocab_size:
            raise InvalidRequest(
                f"{field}.{place}",
                f"{field}: token id {token} is outside the vocabulary (0 to {model.vocab_size - 1})",
            )
    return _fitting(given, field, model)


def _given(request: GenerationRequest) -> tuple[str, str | list[int]]:
    """The field that says it, and what it says."""
    if not request.prediction:
        return "speculation", request.speculation or ""
    if request.speculation:
        raise InvalidRequest("prediction", "prediction can't be given together with speculation")
    return "prediction", _text(request.prediction)


def _text(prediction: PredictedOutput | str) -> str:
    content = prediction if isinstance(prediction, str) else prediction.content
    if isinstance(content, str):
        return content
    if any(part.text is None for part in content):
        raise InvalidRequest("prediction", "prediction: only text can be predicted")
    return "".join(part.text or "" for part in content)


def _fitting(tokens: list[int], field: str, model: ModelInfo) -> tuple[int, ...]:
    if len(tokens) > model.context_length:
        raise ContextLengthExceeded(
            field, f"{field}: {len(tokens)} tokens are more than the model's context of {model.context_length}"
        )
    return tuple(tokens)
