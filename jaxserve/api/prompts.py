"""A prompt on its way to the engine: its tokens, and what of it is returned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxserve.api.ports import Tokenizer
from jaxserve.api.schema.requests import CompletionRequest
from jaxserve.errors import InvalidRequest
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer


@dataclass(frozen=True)
class PromptTokens:
    """One prompt as the model will see it."""

    ids: tuple[int, ...]
    text: str | None = None
    """The text it was made from; None when the caller gave token ids."""
    fragments: tuple[str | int, ...] = ()
    """`raw_output.prompt_fragments`."""
    added: int = 0
    """Leading tokens (BOS) that stand for nothing in `text`."""


@dataclass(frozen=True)
class Echo:
    """The part of a prompt that is returned in front of the output."""

    text: str = ""
    first: int = 0
    """Position in the prompt of the first echoed token."""
    offsets: tuple[int, ...] = ()
    """Where each echoed token starts in `text`."""


def completion_prompts(request: CompletionRequest, tokenizer: Tokenizer, vocab_size: int) -> list[PromptTokens]:
    """The prompts of a completions request, in order, cut to `prompt_truncate_len`.

    Raises:
        InvalidRequest: a token id is outside the vocabulary, or a prompt is empty and the tokenizer has no BOS.
    """
    prompts = _tokenized(request, tokenizer, vocab_size)
    limit = request.prompt_truncate_len
    return prompts if limit is None else [_keep_last(prompt, limit) for prompt in prompts]


def _tokenized(request: CompletionRequest, tokenizer: Tokenizer, vocab_size: int) -> list[PromptTokens]:
    given, parse_special = request.prompt, not request.safe_tokenization
    single = isinstance(given, str) or isinstance(given[0], int)
    prompts = []
    for index, item in enumerate([given] if single else given):
        field = "prompt" if single else f"prompt.{index}"
        if isinstance(item, str):
            prompts.append(_from_text(item, tokenizer, field, parse_special=parse_special))
        else:
            prompts.append(_from_ids(item, tokenizer, field, vocab_size))  # type: ignore[arg-type]
    return prompts


def _from_text(text: str, tokenizer: Tokenizer, field: str, *, parse_special: bool) -> PromptTokens:
    ids = tokenizer.encode(text, add_special_tokens=True, parse_special=parse_special)
    bare = tokenizer.encode(text, add_special_tokens=False, parse_special=parse_special)
    added = len(ids) - len(bare) if ids[len(ids) - len(bare) :] == bare else 0
    ids = ids or _bos(tokenizer, field)
    return PromptTokens(tuple(ids), text, (text,), added if bare else len(ids))


def _from_ids(ids: Sequence[int], tokenizer: Tokenizer, field: str, vocab_size: int) -> PromptTokens:
    for position, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise InvalidRequest(
                f"{field}.{position}", f"{field}: token id {token} is outside the vocabulary (0 to {vocab_size - 1})"
            )
    given = tuple(ids)
    return PromptTokens(given or tuple(_bos(tokenizer, field)), None, given, 0 if given else 1)


def _bos(tokenizer: Tokenizer, field: str) -> list[int]:
    if tokenizer.bos_id is None:
        raise InvalidRequest(field, f"{field} must not be empty: this model has no beginning-of-sequence token")
    return [tokenizer.bos_id]


def _keep_last(prompt: PromptTokens, count: int) -> PromptTokens:
    """The prompt cut to its last `count` tokens; a BOS in front stays where there is room for it."""
    if len(prompt.ids) <= count:
        return prompt
    head = prompt.ids[: prompt.added] if prompt.added < count else ()
    ids = head + prompt.ids[len(prompt.ids) - (count - len(head)) :]
    return PromptTokens(ids, None, ids, len(head))


def echo_of(prompt: PromptTokens, count: int | None, tokenizer: Tokenizer) -> Echo:
    """What to return of a prompt.

    Args:
        prompt: the prompt.
        count: its last `count` tokens; None returns all of it.
        tokenizer: turns tokens into text. Special tokens are shown as they are spelled, but for an added BOS.
    """
    first = 0 if count is None else max(len(prompt.ids) - count, 0)
    detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)
    starts, length, pieces = [], 0, []
    for position, token in enumerate(prompt.ids):
        starts.append(length)
        if position >= prompt.added:
            pieces.append(detokenizer.push(token))
            length += len(pieces[-1])
    pieces.append(detokenizer.flush())
    text = prompt.text if prompt.text is not None else "".join(pieces)
    cut = min(starts[first], len(text)) if first < len(starts) else len(text)
    return Echo(text[cut:], first, tuple(min(start, len(text)) - cut for start in starts[first:]))
