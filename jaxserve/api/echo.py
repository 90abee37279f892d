"""The part of a prompt that is returned in front of the output.

One rule for both endpoints: the text is what the prompt's ids spell, and the tokens shown join to it. Whoever sends the
ids, or the text, gets the same echo again. So the tokens that the tokenizer puts before every text (BOS) stand for no
text; special tokens elsewhere are spelled out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from jaxserve.api.ports import Tokenizer
from jaxserve.api.prompts import count_added
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer
from jaxserve.text.tokenizers.streams import REPLACEMENT


@dataclass(frozen=True)
class Echo:
    """What is returned of a prompt."""

    text: str = ""
    first: int = 0
    """Position in the prompt of the first echoed token."""
    offsets: tuple[int, ...] = ()
    """Where each echoed token starts in `text`."""
    shown: tuple[str | None, ...] = ()
    """What each echoed token wrote; None for one that wrote part of a character."""


class TokenPlaces:
    """Says where in a text each token starts, as the tokens come.

    Args:
        tokenizer: of the model.
        skip_special_tokens: whether the text leaves special tokens out.
        prefix_ids: see `IncrementalDetokenizer`.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool, prefix_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = IncrementalDetokenizer(
            tokenizer, skip_special_tokens=skip_special_tokens, prefix_ids=prefix_ids
        )
        self.text = ""

    def push(self, token: int) -> int:
        """Where the token starts: behind what is still held back, unless its first byte continues that character."""
        held, written = self._detokenizer.pending(), self._tokenizer.token_bytes(token)
        continues = bool(written) and written[0] & 0xC0 == 0x80
        start = len(self.text) + (0 if continues else len(held))
        self.text += self._detokenizer.push(token)
        return start

    def finish(self) -> str:
        """The whole text."""
        self.text += self._detokenizer.flush()
        return self.text


def echo_of(ids: Sequence[int], count: int | None, tokenizer: Tokenizer) -> Echo:
    """What to return of a prompt.

    Args:
        ids: the prompt.
        count: its last `count` tokens; None returns all of it.
        tokenizer: of the model.
    """
    first = 0 if count is None else max(len(ids) - count, 0)
    silent = count_added(ids, tokenizer)
    places = TokenPlaces(tokenizer, skip_special_tokens=False)
    starts = [0] * silent + [places.push(token) for token in ids[silent:]]
    text = places.finish()
    starts.append(len(text))
    shown = tuple(
        None if REPLACEMENT in tokenizer.token_text(token) else text[start:end]
        for token, (start, end) in zip(ids[first:], itertools.pairwise(starts[first:]), strict=True)
    )
    cut = starts[first]
    return Echo(text[cut:], first, tuple(start - cut for start in starts[first:-1]), shown)
