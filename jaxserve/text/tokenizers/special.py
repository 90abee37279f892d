"""The special tokens of a loaded tokenizer: which begin and end a text, and finding them inside a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxserve.text.tokenizers.model_files import AddedToken, ModelFiles


@dataclass(frozen=True)
class Affixes:
    """What a tokenizer adds around a text, and where a generation ends."""

    bos_id: int | None
    eos_ids: tuple[int, ...]
    before: tuple[int, ...]
    """Ids put before a text that gets special tokens."""
    after: tuple[int, ...]
    """Ids put after it."""

    def wrap(self, ids: list[int]) -> list[int]:
        """The ids with special tokens around them."""
        return [*self.before, *ids, *self.after]


def resolve_affixes(
    files: ModelFiles,
    id_of: Callable[[str], int | None],
    *,
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    bos_text: str | None = None,
    eos_texts: Iterable[str] = (),
) -> Affixes:
    """BOS and EOS from the model's files.

    add_bos_token and add_eos_token, where tokenizer_config.json states them, decide; otherwise `before` and `after`
    (a tokenizer.json's post-processor, a family's habit) stand. `bos_text` and `eos_texts` are the family's own, used
    where the files name none.
    """
    named = files.special_tokens
    bos_id = _lookup(id_of, named.get("bos_token"))
    if bos_id is None:
        bos_id = files.config_bos_id()
        if bos_id is None and "bos_token" not in files.tokenizer_config:
            bos_id = _lookup(id_of, bos_text)
    eos_id = _lookup(id_of, named.get("eos_token"))
    eos_ids = files.config_eos_ids() | ({eos_id} if eos_id is not None else set())
    if not eos_ids:
        eos_ids = {i for text in eos_texts if (i := id_of(text)) is not None}
    head = _with(list(before), bos_id, wanted=files.add_bos, at=0)
    tail = _with(list(after), eos_id, wanted=files.add_eos, at=len(after))
    return Affixes(bos_id, tuple(sorted(eos_ids)), tuple(head), tuple(tail))


def _lookup(id_of: Callable[[str], int | None], text: str | None) -> int | None:
    return None if text is None else id_of(text)


def _with(ids: list[int], token_id: int | None, *, wanted: bool | None, at: int) -> list[int]:
    if token_id is None or wanted is None:
        return ids
    if wanted and token_id not in ids:
        ids.insert(at, token_id)
    return ids if wanted else [i for i in ids if i != token_id]


_SPACE = re.compile(r"\s*")


def _after_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


class SpecialSplitter:
    """Cuts a text at the special tokens spelt out in it; the longest token wins where several begin together."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        ordered = sorted(tokens, key=lambda token: -len(token.text))
        self._tokens = {token.text: token for token in ordered}
        self._pattern = re.compile("|".join(re.escape(token.text) for token in ordered)) if ordered else None

    def cut(self, text: str) -> Iterator[str]:
        """The whole text, cut after the first character of every token spelt out in it, so that none is left."""
        start = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            yield text[start : match.start() + 1]
            start = match.start() + 1
        if start < len(text):
            yield text[start:]

    def split(self, text: str) -> Iterator[str | int]:
        """Stretches of ordinary text (never empty) and ids of special tokens, in order."""
        start = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            token = self._tokens[match[0]]
            before = text[start : match.start()]
            if before := before.rstrip() if token.lstrip else before:
                yield before
            yield token.id
            start = match.end()
            if token.rstrip:
                start = _after_space(text, start)
        if start < len(text):
            yield text[start:]
