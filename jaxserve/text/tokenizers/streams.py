"""Incremental decoding: token ids in, complete characters out, in O(1) amortised work per token.

A tokenizer's `decode` is the fold of its stream, so streaming and decoding at once can't differ. Two laws cover the
tokenizers in use: `ByteStream` (byte-level BPE, tiktoken: the text is the UTF-8 decoding of all bytes) and
`PieceStream` (SentencePiece and its tokenizer.json form: pieces are text, characters outside the vocabulary are runs of
byte tokens, and the space before the first word is not part of the text).
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Protocol

REPLACEMENT = "\ufffd"

END_RUN = b""
"""The piece of a token that has no text and no bytes but ends a run of byte tokens (SentencePiece's control tokens)."""


class TokenStream(Protocol):
    """Decodes one sequence of token ids."""

    def push(self, token_id: int) -> str:
        """Text that this token completes; "" while a character is still incomplete."""

    def flush(self) -> str:
        """Text still held when the sequence ends: incomplete bytes become U+FFFD."""

    def pending(self) -> str:
        """What `flush` would return now; changes nothing."""


def _one_replacement_per_byte(error: UnicodeError) -> tuple[str, int]:
    """SentencePiece's rule for broken UTF-8: every byte that belongs to no character becomes one U+FFFD."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return REPLACEMENT * (error.end - error.start), error.end


PER_BYTE = "jaxserve.one_replacement_per_byte"
codecs.register_error(PER_BYTE, _one_replacement_per_byte)
_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class ByteStream:
    """Text = UTF-8 of the concatenated token bytes; a broken sequence becomes U+FFFD by the maximal-subpart rule.

    `bytes_of(id)` gives a token's bytes, b"" for one that is left out.
    """

    __slots__ = ("_bytes_of", "_utf8")

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._utf8 = _new_utf8_decoder("replace")

    def push(self, token_id: int) -> str:
        """Text that this token completes."""
        return self._utf8.decode(self._bytes_of(token_id))

    def flush(self) -> str:
        """Incomplete bytes at the end, as U+FFFD."""
        text = self._utf8.decode(b"", True)
        self._utf8.reset()
        return text

    def pending(self) -> str:
        """What `flush` would return now."""
        return self._utf8.getstate()[0].decode("utf-8", "replace")


class PieceRules:
    """How pieces become text. Immutable; shared by all streams of a tokenizer.

    Args:
        piece_of: a token's text (str), its raw byte (bytes, a byte-fallback token), or None when it is left out.
        first_of: the same for the first token of a text (differs where the leading space is dropped).
        first_lasts: whether the next token counts as first again while no text has appeared
            (SentencePiece with remove_extra_whitespaces).
        strip_start: at most so many spaces are dropped from the start of the whole text.
        strip_stop: at most so many spaces are dropped from its end.
        separator: text between two tokens.
    """

    __slots__ = ("first_lasts", "first_of", "piece_of", "separator", "strip_start", "strip_stop")

    def __init__(
        self,
        piece_of: Callable[[int], str | bytes | None],
        first_of: Callable[[int], str | bytes | None] | None = None,
        *,
        first_lasts: bool = False,
        strip_start: int = 0,
        strip_stop: int = 0,
        separator: str = "",
    ) -> None:
        self.piece_of = piece_of
        self.first_of = first_of or piece_of
        self.first_lasts = first_lasts
        self.strip_start = strip_start
        self.strip_stop = strip_stop
        self.separator = separator


class PieceStream:
    """Text = pieces in order, runs of byte tokens decoded as UTF-8 (one U+FFFD per byte that belongs to no character).

    The library `tokenizers` turns a whole run of byte tokens into U+FFFD when any part of it is broken; that can't be
    streamed, so here (as in SentencePiece) the complete characters of such a run are kept.
    """

    __slots__ = ("_first", "_held", "_incomplete", "_rules", "_strip", "_utf8")

    def __init__(self, rules: PieceRules) -> None:
        self._rules = rules
        self._utf8 = _new_utf8_decoder(PER_BYTE)
        self._incomplete = False
        self._first = True
        self._strip = rules.strip_start
        self._held = ""

    def push(self, token_id: int) -> str:
        """Text that this token completes."""
        rules, first = self._rules, self._first
        piece = rules.first_of(token_id) if first else rules.piece_of(token_id)
        if piece is None:
            return ""
        text = self._close(piece) if isinstance(piece, str) else self._open(piece)
        if first:
            self._first = (rules.first_lasts or piece == END_RUN) and not (text or self._incomplete)
        elif rules.separator:
            text = rules.separator + text
        return self._trim(text) if self._strip or rules.strip_stop else text

    def flush(self) -> str:
        """Incomplete bytes at the end, as U+FFFD."""
        text = self._trim(self._close(""))
        text, self._held = self._held + text, ""
        return text[: len(text) - self._trailing(text)]

    def pending(self) -> str:
        """What `flush` would return now."""
        text = self._held + self._utf8.getstate()[0].decode("utf-8", PER_BYTE)
        return text[: len(text) - self._trailing(text)]

    def _open(self, byte: bytes) -> str:
        if not byte:
            return self._close("")
        text = self._utf8.decode(byte)
        self._incomplete = bool(self._utf8.getstate()[0])
        return text

    def _close(self, piece: str) -> str:
        """End a run of byte tokens, then this piece."""
        if not self._incomplete:
            return piece
        self._incomplete = False
        text = self._utf8.decode(b"", True)
        self._utf8.reset()
        return text + piece

    def _trim(self, text: str) -> str:
        """Drop leading spaces of the whole text; hold back trailing ones that may be the text's last."""
        if self._strip and text:
            bare = text.lstrip(" ")
            cut = min(len(text) - len(bare), self._strip)
            self._strip = 0 if bare else self._strip - cut
            text = text[cut:]
        if self._rules.strip_stop:
            text = self._held + text
            keep = len(text) - self._trailing(text)
            text, self._held = text[:keep], text[keep:]
        return text

    def _trailing(self, text: str) -> int:
        return min(len(text) - len(text.rstrip(" ")), self._rules.strip_stop)
