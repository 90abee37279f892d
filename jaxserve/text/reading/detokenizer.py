"""Streaming text of one sequence: complete characters only, the same characters that decoding at once would give."""

from __future__ import annotations

from collections.abc import Sequence

from jaxserve.text.tokenizers.streams import REPLACEMENT
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_TAIL = 8
"""Prompt ids read at its end: a character has at most four bytes, so an incomplete one begins among the last tokens."""


class IncrementalDetokenizer:
    """Turns token ids into text as they come; O(1) amortised per token.

    Law: the texts of all pushes and the flush add up to `tokenizer.decode(ids, skip_special_tokens=...)`.

    With `prefix_ids` (the prompt) the output continues the prompt's text: the first word's leading space is kept, and
    a character whose first bytes are the prompt's last comes out whole. Only the prompt's ids up to its first character
    and its last few are read.
    """

    __slots__ = ("_push", "_seam", "_stream")

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool, prefix_ids: Sequence[int] = ()) -> None:
        self._stream = tokenizer.stream(skip_special_tokens=skip_special_tokens)
        self._push = self._stream.push
        start = 0
        while start < len(prefix_ids) and not self._push(prefix_ids[start]):
            start += 1
        for token_id in prefix_ids[max(start + 1, len(prefix_ids) - _TAIL) :]:
            self._push(token_id)
        # If the prompt ends inside a character that is never completed, its U+FFFD belongs to the prompt's text.
        pending = self._stream.pending()
        self._seam = pending if prefix_ids and pending.strip(REPLACEMENT) == "" else ""

    def push(self, token_id: int) -> str:
        """Text that this token completes ("" while a character is incomplete)."""
        text = self._push(token_id)
        if self._seam and text:
            text, self._seam = text.removeprefix(self._seam), ""
        return text

    def pending(self) -> str:
        """What `flush` would return now; changes nothing."""
        return self._stream.pending().removeprefix(self._seam)

    def flush(self) -> str:
        """Text still held when the sequence ends; call once."""
        text, self._seam = self._stream.flush().removeprefix(self._seam), ""
        return text
