"""The prompts of a completions request, on their way to the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from jaxserve.api.images import GENERIC, ShownImage, in_the_models_words, own_placeholder, spelled, with_images
from jaxserve.api.lengths import check_fits, end
from jaxserve.api.ports import TextServices, Tokenizer
from jaxserve.api.prompt_tokens import PromptTokens
from jaxserve.api.safe_text import SafeText
from jaxserve.api.schema.requests import CompletionRequest
from jaxserve.errors import InvalidRequest
from jaxserve.images.types import ImageMarkup


def completion_prompts(
    request: CompletionRequest, text: TextServices, images: Sequence[ShownImage], vocab_size: int, context: int
) -> list[PromptTokens]:
    """The prompts of a completions request, in order, cut to `prompt_truncate_len`.

    Args:
        request: the request.
        text: tokenizer, and how the model reads images.
        images: of all prompts, in order.
        vocab_size: of the model.
        context: tokens that fit the model's context.

    Raises:
        InvalidRequest: a token id is outside the vocabulary, a prompt is empty and the tokenizer has no BOS, or there
            are more or fewer images than placeholders.
        ContextLengthExceeded: a text is so long that it can't fit the `context`, whatever its tokens are.
    """
    markup = text.images.markup if text.images is not None else None
    reader = _Reader(request, text.tokenizer, vocab_size, context, markup if images else None)
    prompts, used = [], 0
    for field, item in _items(request):
        prompt, count = reader.read(item, field)
        if markup is not None:
            mine = images[used : used + count]
            # Those in front of a text that only matters from its middle went with it.
            kept = prompt.ids.count(markup.token) if request.prompt_truncate_len is not None else len(mine)
            prompt = with_images(prompt, mine[len(mine) - min(kept, len(mine)) :], markup, "images")
        used += count
        prompts.append(reader.cut(prompt))
    if images and used != len(images):
        raise InvalidRequest("images", f"images: {len(images)} for {used} placeholders ({GENERIC}) in the prompt")
    return prompts


def _items(request: CompletionRequest) -> Iterator[tuple[str, str | list[int]]]:
    given = request.prompt
    if isinstance(given, str) or isinstance(given[0], int):
        yield "prompt", given
        return
    for index, item in enumerate(given):
        yield f"prompt.{index}", item  # type: ignore[misc]


class _Reader:
    """Reads one prompt after the other.

    Args:
        request: the request.
        tokenizer: of the model.
        vocab_size: of the model.
        context: tokens that fit.
        markup: how images stand in prompts; None where the request has none.
    """

    def __init__(
        self,
        request: CompletionRequest,
        tokenizer: Tokenizer,
        vocab_size: int,
        context: int,
        markup: ImageMarkup | None,
    ) -> None:
        self._tokenizer, self._vocab_size, self._context, self._markup = tokenizer, vocab_size, context, markup
        self._limit, self._safe = request.prompt_truncate_len, bool(request.safe_tokenization)

    def read(self, item: str | list[int], field: str) -> tuple[PromptTokens, int]:
        """A prompt with one placeholder for each image, and how many it had before it was cut."""
        if isinstance(item, str):
            return self._from_text(item, field)
        prompt = _from_ids(item, self._tokenizer, field, self._vocab_size)
        return prompt, 0 if self._markup is None else prompt.ids.count(self._markup.token)

    def cut(self, prompt: PromptTokens) -> PromptTokens:
        """The prompt cut to `prompt_truncate_len`; a BOS in front stays where there is room for it."""
        if self._limit is None or len(prompt.ids) <= self._limit:
            return prompt
        return prompt.last(self._limit, count_added(prompt.ids, self._tokenizer))

    def _from_text(self, text: str, field: str) -> tuple[PromptTokens, int]:
        placeholder = GENERIC
        if self._markup is not None and not self._safe:
            text = in_the_models_words(text, self._markup, self._tokenizer)
            placeholder = own_placeholder(self._markup, self._tokenizer)
        count = text.count(placeholder)
        if self._limit is not None:
            text = end(self._tokenizer, text, self._limit)
        else:
            check_fits(self._tokenizer, text, self._context, field, parse_special=not self._safe)
        if self._markup is not None and self._safe:
            text, ids = self._safely(text, self._markup)
        else:
            ids = self._tokenizer.encode(text, add_special_tokens=True, parse_special=not self._safe)
        return PromptTokens(tuple(ids or _bos(self._tokenizer, field)), text, (text,)), count

    def _safely(self, text: str, markup: ImageMarkup) -> tuple[str, list[int]]:
        """The text and its tokens, of which only the placeholders of images are special ones."""
        safe = SafeText(self._tokenizer, text)
        parts = [safe.break_all(part) for part in text.split(GENERIC)]
        text, ids = safe.encode(spelled(markup, self._tokenizer).join(parts))
        return text, [*_before_every_text(self._tokenizer), *ids]


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
