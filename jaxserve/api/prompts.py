"""A prompt on its way to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jaxserve.api.lengths import check_fits, end
from jaxserve.api.ports import Tokenizer
from jaxserve.api.schema.requests import CompletionRequest
from jaxserve.errors import InvalidRequest


@dataclass(frozen=True)
class PromptTokens:
    """One prompt as the model will see it."""

    ids: tuple[int, ...]
    text: str | None = None
    """The text it was made from; None when the caller gave token ids."""
    fragments: tuple[str | int, ...] = ()
    """`raw_output.prompt_fragments`."""


def completion_prompts(
    request: CompletionRequest, tokenizer: Tokenizer, vocab_size: int, context: int
) -> list[PromptTokens]:
    """The prompts of a completions request, in order, cut to `prompt_truncate_len`.

    Raises:
        InvalidRequest: a token id is outside the vocabulary, or a prompt is empty and the tokenizer has no BOS.
        ContextLengthExceeded: a text is so long that it can't fit the `context`, whatever its tokens are.
    """
    prompts = _tokenized(request, tokenizer, vocab_size, context)
    limit = request.prompt_truncate_len
    return prompts if limit is None else [_keep_last(prompt, limit, tokenizer) for prompt in prompts]


def _tokenized(request: CompletionRequest, tokenizer: Tokenizer, vocab_size: int, context: int) -> list[PromptTokens]:
    given, parse_special = request.prompt, not request.safe_tokenization
    single = isinstance(given, str) or isinstance(given[0], int)
    prompts = []
    for index, item in enumerate([given] if single else given):
        field = "prompt" if single else f"prompt.{index}"
        if isinstance(item, str):
            if request.prompt_truncate_len is not None:
                item = end(tokenizer, item, request.prompt_truncate_len)
            else:
                check_fits(tokenizer, item, context, field, parse_special=parse_special)
            prompts.append(_from_text(item, tokenizer, field, parse_special=parse_special))
        else:
            prompts.append(_from_ids(item, tokenizer, field, vocab_size))  # type: ignore[arg-type]
    return prompts


def _from_text(text: str, tokenizer: Tokenizer, field: str, *, parse_special: bool) -> PromptTokens:
    ids = tokenizer.encode(text, add_special_tokens=True, parse_special=parse_special)
    return PromptTokens(tuple(ids or _bos(tokenizer, field)), text, (text,))


@lru_cache(maxsize=8)
def _before_every_text(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that the tokenizer puts before a text (BOS, in most models that have one)."""
    bare, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
    before = len(whole) - len(bare)
    return tuple(whole[:before]) if whole[before:] == bare else ()


def count_added(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many tokens at a prompt's beginning are those that the tokenizer puts before every text."""
    added = _before_every_text(tokenizer)
    return len(added) if tuple(ids[: len(added)]) == added else 0


def _from_ids(ids: Sequence[int], tokenizer: Tokenizer, field: str, vocab_size: int) -> PromptTokens:
    for position, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise InvalidRequest(
                f"{field}.{position}", f"{field}: token id {token} is outside the vocabulary (0 to {vocab_size - 1})"
            )
    given = tuple(ids)
    return PromptTokens(given or tuple(_bos(tokenizer, field)), None, given)


def _bos(tokenizer: Tokenizer, field: str) -> list[int]:
    if tokenizer.bos_id is None:
        raise InvalidRequest(field, f"{field} must not be empty: this model has no beginning-of-sequence token")
    return [tokenizer.bos_id]


def _keep_last(prompt: PromptTokens, count: int, tokenizer: Tokenizer) -> PromptTokens:
    """The prompt cut to its last `count` tokens; a BOS in front stays where there is room for it."""
    if len(prompt.ids) <= count:
        return prompt
    added = count_added(prompt.ids, tokenizer)
    head = prompt.ids[:added] if added < count else ()
    ids = head + prompt.ids[len(prompt.ids) - (count - len(head)) :]
    return PromptTokens(ids, None, ids)
