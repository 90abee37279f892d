"""SentencePiece's `tokenizer.model` (Kudo and Richardson 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import sentencepiece

from jaxserve.errors import ModelLoadError
from jaxserve.text.tokenizers.base import BaseTokenizer, IdTable
from jaxserve.text.tokenizers.hf_decoder import fallback_byte
from jaxserve.text.tokenizers.model_files import AddedToken, ModelFiles
from jaxserve.text.tokenizers.special import SpecialSplitter, resolve_affixes
from jaxserve.text.tokenizers.streams import END_RUN, PieceRules, PieceStream, TokenStream

SPACE = "▁"

_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
"""Appended to a serialised model it sets normalizer_spec.add_dummy_prefix (field 3 of field 3) to false: protocol
buffers merge a repeated message into the earlier one."""


class SentencePieceTokenizer(BaseTokenizer):
    """A `jaxserve.text.tokenizers.tokenizer.Tokenizer` from a SentencePiece model.

    A stretch of text after a special token gets SentencePiece's dummy leading space, unless tokenizer_config.json says
    `legacy: false`; then only the start of the whole text does.

    Raises:
        ModelLoadError: the file is broken.
    """

    def __init__(self, path: Path, files: ModelFiles) -> None:
        self._model = _load(path)
        self._proto: bytes = self._model.serialized_model_proto()
        self._continuing = sentencepiece.SentencePieceProcessor(model_proto=self._proto + _NO_DUMMY_PREFIX)
        legacy = files.tokenizer_config.get("legacy", True) is not False
        self._after_special = self._model if legacy else self._continuing
        self._pieces = self._model.get_piece_size()
        self._added = {token.id: token for token in self._special_tokens(files)}
        self._ids = {token.text: token.id for token in self._added.values()}
        self._splitter = SpecialSplitter(self._added.values())
        bos, eos = self._model.bos_id(), self._model.eos_id()
        super().__init__(
            size=max(self._pieces, *(token_id + 1 for token_id in self._added)),
            special_ids=(token.id for token in self._added.values() if token.special),
            names=self._default_names() | files.special_tokens,
            affixes=resolve_affixes(
                files,
                self.id_of,
                before=[bos] if bos >= 0 else [],
                bos_text=self._model.id_to_piece(bos) if bos >= 0 else None,
                eos_texts=[self._model.id_to_piece(eos)] if eos >= 0 else [],
            ),
        )
        self._bytes = IdTable(self._compute_bytes)
        self._rules = {skip: self._piece_rules(skip) for skip in (False, True)}

    def stream(self, *, skip_special_tokens: bool) -> TokenStream:
        """A fresh incremental decoder."""
        return PieceStream(self._rules[skip_special_tokens])

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes this token stands for inside a text."""
        return self._bytes[token_id]

    def id_of(self, text: str) -> int | None:
        """Id of a special or added token, else of the piece with this text (which spells a space as ▁)."""
        if (token_id := self._ids.get(text)) is not None:
            return token_id
        piece_id: int = self._model.piece_to_id(text)
        return piece_id if self._model.id_to_piece(piece_id) == text else None

    def _encode(self, text: str, parse_special: bool) -> list[int]:
        ids: list[int] = []
        if not parse_special:
            for stretch in self._markers.cut(text):
                ids += (self._continuing if ids else self._model).encode(stretch)
            return ids
        for part in self._splitter.split(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += (self._after_special if ids else self._model).encode(part)
        return ids

    @cached_property
    def _markers(self) -> SpecialSplitter:
        """User-defined pieces such as "<start_of_turn>", which SentencePiece itself finds in any text."""
        texts = {token_id: self._model.id_to_piece(token_id) for token_id in _user_defined_ids(self._proto)}
        return SpecialSplitter(
            AddedToken(i, text, special=False) for i, text in texts.items() if text.strip(" \t\r\n▁")
        )

    def _special_tokens(self, files: ModelFiles) -> Iterator[AddedToken]:
        """Control and unknown pieces of the model, then what tokenizer_config.json adds or says about them."""
        model = self._model
        named = {*files.special_tokens.values(), *files.extra_special_texts}
        for token_id in range(self._pieces):
            text = model.id_to_piece(token_id)
            if model.is_control(token_id) or model.is_unknown(token_id) or text in named:
                yield AddedToken(token_id, text, special=True)
        yield from files.added_tokens

    def _default_names(self) -> dict[str, str]:
        model = self._model
        ids = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "unk_token": model.unk_id()}
        return {name: model.id_to_piece(token_id) for name, token_id in ids.items() if token_id >= 0}

    def _compute_bytes(self, token_id: int) -> bytes:
        piece = self._piece(token_id)
        if piece is None:
            return b""
        return piece if isinstance(piece, bytes) else piece.encode("utf-8", "replace")

    def _piece(self, token_id: int) -> str | bytes | None:
        if (token := self._added.get(token_id)) is not None:
            return token.text
        if not 0 <= token_id < self._pieces:
            return None
        text: str = self._model.id_to_piece(token_id)
        if self._model.is_byte(token_id):
            return fallback_byte(text)
        return text.replace(SPACE, " ")

    def _piece_rules(self, skip: bool) -> PieceRules:
        def piece(token_id: int) -> str | bytes | None:
            return END_RUN if skip and self.is_special(token_id) else self._piece(token_id)

        def first(token_id: int) -> str | bytes | None:
            text = piece(token_id)
            begins_word = isinstance(text, str) and text.startswith(" ") and token_id not in self._added
            return text[1:] if begins_word and isinstance(text, str) else text

        drops, repeats = _leading_space_rule(self._model)
        return PieceRules(
            IdTable(piece).__getitem__, IdTable(first if drops else piece).__getitem__, first_lasts=repeats
        )


def _load(path: Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ModelLoadError(f"{path} is neither a SentencePiece model nor a tiktoken vocabulary.") from error


def _user_defined_ids(proto: bytes) -> Iterator[int]:
    """Ids of the pieces of type USER_DEFINED (4): field 3 of the messages in field 1 of sentencepiece_model.proto."""
    pieces = (value for field, value in _fields(proto) if field == 1 and isinstance(value, bytes))
    for token_id, piece in enumerate(pieces):
        if any(field == 3 and value == 4 for field, value in _fields(piece)):
            yield token_id


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a serialised protocol buffer: (number, integer or bytes)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
        else:
            size, at = _varint(message, at) if kind == 2 else (8 if kind == 1 else 4, at)
            yield key >> 3, message[at : at + size]
            at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _leading_space_rule(model: sentencepiece.SentencePieceProcessor) -> tuple[bool, bool]:
    """Whether decoding drops a first piece's space, and goes on while there is no text (seen on samples)."""
    spaced = (i for i in range(model.get_piece_size()) if model.id_to_piece(i).startswith(SPACE))
    sample = next(spaced, None)
    if sample is None:
        return False, False
    drops = model.decode([sample]) != model.id_to_piece(sample).replace(SPACE, " ")
    space = model.piece_to_id(SPACE)
    repeats = drops and model.id_to_piece(space) == SPACE and model.decode([space, space]) == ""
    return drops, repeats
