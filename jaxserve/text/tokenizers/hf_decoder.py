"""The `decoder` of a tokenizer.json, compiled to the rules of our incremental streams.

The library decodes whole lists only. A decoder is a chain of steps over a list of token texts; every chain that
language models ship reduces to: change each token by itself, decode bytes, join, trim the ends. Any other chain is
refused at load.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jaxserve.errors import ModelLoadError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte (Radford et al. 2019, `bytes_to_unicode`), inverted.

    Bytes that print stand for themselves; the others, in order, for the characters from U+0100 on.
    """
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printing}
    others = (byte for byte in range(256) if chr(byte) not in alphabet)
    alphabet.update({chr(256 + rank): byte for rank, byte in enumerate(others)})
    return alphabet


def byte_level_bytes(token: str) -> bytes:
    """Bytes of a byte-level token; a token with a character outside the alphabet (an added token) is plain UTF-8."""
    alphabet = byte_alphabet()
    try:
        return bytes([alphabet[char] for char in token])
    except KeyError:
        return token.encode("utf-8", "replace")


def fallback_byte(token: str) -> bytes | None:
    """The byte of a byte-fallback token such as "<0x0A>"."""
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else None


@dataclass
class DecoderPlan:
    """A compiled decoder."""

    byte_level: bool = False
    byte_fallback: bool = False
    strip_start: int = 0
    strip_stop: int = 0
    separator: str = ""
    drop_first: str = ""
    """Character removed from the first token of a text (Metaspace), given before the other steps."""
    _steps: list[Callable[[str], str]] = field(default_factory=list)
    _joined: bool = False

    def piece(self, token: str) -> str | bytes:
        """What a token contributes: text, or one byte."""
        if self.byte_fallback and (byte := fallback_byte(token)) is not None:
            return byte
        for step in self._steps:
            token = step(token)
        return token

    def first_piece(self, token: str) -> str | bytes:
        """What it contributes as the first token of a text."""
        return self.piece(token.replace(self.drop_first, "") if self.drop_first else token)

    def bytes_of(self, token: str) -> bytes:
        """Its bytes inside a text."""
        piece = self.piece(token)
        if isinstance(piece, bytes):
            return piece
        return byte_level_bytes(piece) if self.byte_level else piece.encode("utf-8", "replace")

    def add(self, config: dict[str, Any]) -> None:
        """Append one step of the chain."""
        kind = config.get("type")
        if kind == "Sequence":
            for step in config["decoders"]:
                self.add(step)
        elif kind == "ByteLevel":
            self._refuse(config, self._joined or self.byte_fallback)
            self.byte_level = self._joined = True
        elif kind == "ByteFallback":
            self._refuse(config, self._joined)
            self.byte_fallback = True
        elif kind == "Fuse":
            self._joined = True
        elif kind == "Strip":
            self._add_strip(config)
        elif kind == "Replace":
            self._add_replace(config)
        elif kind == "Metaspace":
            self._add_metaspace(config)
        else:
            self._refuse(config, True)

    def _add_strip(self, config: dict[str, Any]) -> None:
        again = bool(self.strip_start or self.strip_stop)
        self._refuse(config, config["content"] != " " or not self._joined or self.byte_level or again)
        self.strip_start, self.strip_stop = config["start"], config["stop"]

    def _add_replace(self, config: dict[str, Any]) -> None:
        old, new = config["pattern"].get("String"), config["content"]
        # Joined text arrives in pieces; only the replacement of a single character is the same on pieces. After
        # stripping, or on byte-fallback text, even that would come too late or too early.
        late = self._joined and (self.byte_level or bool(self.strip_start or self.strip_stop) or self.byte_fallback)
        self._refuse(config, not old or late or (self._joined and len(old) != 1))
        self._steps.append(lambda token: token.replace(old, new))

    def _add_metaspace(self, config: dict[str, Any]) -> None:
        self._refuse(config, self._joined or bool(self._steps))
        mark = config.get("replacement", "▁")
        if config.get("prepend_scheme", "always") != "never" and config.get("add_prefix_space", True):
            self.drop_first = mark
        self._steps.append(lambda token: token.replace(mark, " "))

    def _refuse(self, config: dict[str, Any], bad: bool) -> None:
        if bad:
            raise ModelLoadError(
                f"tokenizer.json: a decoder step of type {config.get('type')!r} is not supported there."
            )


def compile_decoder(config: dict[str, Any] | None) -> DecoderPlan:
    """Rules of a tokenizer.json's `decoder` entry (None: tokens joined by spaces, as the library does).

    Raises:
        ModelLoadError: the chain can't be decoded incrementally by these rules.
    """
    plan = DecoderPlan()
    if config is None:
        plan.separator = " "
        return plan
    try:
        plan.add(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"tokenizer.json: the decoder can't be understood ({error!r}).") from error
    return plan
