"""What every tokenizer can do, and how a model directory's tokenizer is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from jaxserve.errors import ModelLoadError
from jaxserve.text.tokenizers.model_files import ModelFiles
from jaxserve.text.tokenizers.streams import TokenStream


class Tokenizer(Protocol):
    """Text to token ids and back. Immutable once loaded; safe to share between threads."""

    def __hash__(self) -> int:
        """By identity: what has been computed of a tokenizer is remembered by it."""

    @property
    def vocab_size(self) -> int:
        """Highest token id + 1. The model's own vocabulary may be larger: ids beyond are decoded as nothing."""

    @property
    def bos_id(self) -> int | None:
        """Token that begins a text, if the model has one."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a generation, ascending: generation_config, config and tokenizer_config united."""

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """Named special tokens as chat templates see them: {"bos_token": "<s>", ...}."""

    def encode(self, text: str, *, add_special_tokens: bool, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: any string; lone surrogates are encoded as U+FFFD.
            add_special_tokens: add BOS and EOS as the model's files say. Off for text that a chat template wrote.
            parse_special: recognise special tokens spelt out in the text. Off for content that must not be able to
                act as a control token.
        """

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        """Text of token ids; incomplete or broken UTF-8 becomes U+FFFD."""

    def stream(self, *, skip_special_tokens: bool) -> TokenStream:
        """A fresh incremental decoder whose pushes and flush add up to `decode`."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes this token stands for inside a text (a special token's own text); b"" for an unknown id."""

    def token_text(self, token_id: int) -> str:
        """`token_bytes` as UTF-8, with U+FFFD for what is not a character by itself."""

    def id_of(self, text: str) -> int | None:
        """Id of the special or added token with this text, else of the vocabulary's piece, else None."""

    def is_special(self, token_id: int) -> bool:
        """Whether `skip_special_tokens` leaves this token out."""


def load_tokenizer(model_dir: Path) -> Tokenizer:
    """The tokenizer of a model directory.

    Looks for `tokenizer.json`, then `tokenizer.model` (SentencePiece, or a tiktoken vocabulary as Llama 3 ships it:
    told apart by content), `tiktoken.model`, `*.tiktoken`.

    Raises:
        ModelLoadError: no tokenizer, or one that can't be used; the message is one sentence.
    """
    from jaxserve.text.tokenizers.hf import HfTokenizer
    from jaxserve.text.tokenizers.spm import SentencePieceTokenizer
    from jaxserve.text.tokenizers.tiktoken_bpe import TiktokenTokenizer, is_tiktoken_file

    files = ModelFiles(model_dir)
    if (model_dir / "tokenizer.json").is_file():
        return HfTokenizer(model_dir / "tokenizer.json", files)
    for path in [*_named(model_dir), *sorted(model_dir.glob("*.tiktoken"))]:
        if is_tiktoken_file(path):
            return TiktokenTokenizer(path, files)
        if path.suffix == ".model":
            return SentencePieceTokenizer(path, files)
        raise ModelLoadError(f"{path} is not a tiktoken vocabulary (lines of base64 and rank).")
    raise ModelLoadError(f"{model_dir} has no tokenizer (tokenizer.json, tokenizer.model or *.tiktoken).")


def _named(model_dir: Path) -> list[Path]:
    return [p for name in ("tokenizer.model", "tiktoken.model") if (p := model_dir / name).is_file()]
