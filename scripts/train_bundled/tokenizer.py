"""Trains the SentencePiece tokenizer of the story model on its own text."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import sentencepiece as spm

from train_bundled.corpus.chat import TURN_END, TURN_START

BOS_ID = 1
EOS_ID = 2


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """The serialized `tokenizer.model`: BPE, byte fallback, no normalisation, chat marks as single pieces.

    Lines are learned apart from each other; a newline itself is the byte piece <0x0A>, as in Llama's tokenizer.
    """
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=_lines(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        required_chars="".join(chr(code) for code in range(33, 127)),
        user_defined_symbols=[TURN_START, TURN_END],
        unk_id=0,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        pad_id=-1,
        num_threads=1,
        minloglevel=1,
    )
    return model.getvalue()


def load(model: bytes) -> spm.SentencePieceProcessor:
    """The tokenizer of serialized bytes."""
    return spm.SentencePieceProcessor(model_proto=model)


def encode_document(tokenizer: spm.SentencePieceProcessor, text: str) -> list[int]:
    """<s>, the text, </s>."""
    return [BOS_ID, *tokenizer.encode(text), EOS_ID]


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.split("\n"):
            if line:
                yield line
