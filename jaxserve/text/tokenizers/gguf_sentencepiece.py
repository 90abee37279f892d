"""A SentencePiece model made of a vocabulary: the serialised message of sentencepiece_model.proto.

GGUF files took pieces, scores and types from such a message; written back they give SentencePiece's own algorithm.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_VARINT, _BYTES, _FLOAT = 0, 2, 5
_BPE = 2
_SPECIAL = {"unk": (40, 45), "bos": (41, 46), "eos": (42, 47), "pad": (43, 48)}
"""Fields of the trainer's message for a special token: of its id, of its text."""


def sentencepiece_model(
    tokens: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    special: Mapping[str, int | None],
    *,
    leading_space: bool,
) -> bytes:
    """The serialised model.

    Args:
        tokens: pieces in the order of their ids.
        scores: of each piece.
        types: of each piece: normal 1, unknown 2, control 3, user-defined 4, unused 5, byte 6, as in the message.
        special: ids of unk, bos, eos and pad; None or absent = there is none.
        leading_space: whether a text gets a space in front.
    """
    unknown = special.get("unk")
    kinds = [2 if i == unknown else 3 if kind == 2 else kind for i, kind in enumerate(types)]  # exactly one is unknown
    pieces = (
        _field(1, _text(1, token) + _float(2, score) + _number(3, kind))
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
    )
    trainer = _number(3, _BPE) + _number(35, 1) + b"".join(_special(special, tokens))  # 35: bytes stand for the rest
    normalizer = _text(1, "identity") + _number(3, leading_space) + _number(4, 0) + _number(5, 1)
    return b"".join(pieces) + _field(2, trainer) + _field(3, normalizer)


def _special(special: Mapping[str, int | None], tokens: Sequence[str]) -> list[bytes]:
    fields = []
    for name, (id_field, text_field) in _SPECIAL.items():
        token_id = special.get(name)
        fields.append(_number(id_field, -1 if token_id is None else token_id))
        if token_id is not None:
            fields.append(_text(text_field, tokens[token_id]))
    return fields


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(int(value))


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | _FLOAT) + struct.pack("<f", value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode("utf-8", "replace"))
