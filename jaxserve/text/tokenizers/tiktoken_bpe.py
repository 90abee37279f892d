"""tiktoken vocabularies: lines of base64 token and rank (`*.tiktoken`, or Llama 3's and Kimi's `*.model`)."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import tiktoken

from jaxserve.errors import ModelLoadError
from jaxserve.text.tokenizers.base import BaseTokenizer, IdTable
from jaxserve.text.tokenizers.model_files import AddedToken, ModelFiles
from jaxserve.text.tokenizers.special import SpecialSplitter, resolve_affixes
from jaxserve.text.tokenizers.streams import ByteStream, TokenStream
from jaxserve.text.tokenizers.tiktoken_families import FAMILIES, TiktokenFamily, find_family

_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]+)")

MAX_RUN = 25_000
"""Longer runs of white space, or of anything else, are cut: the library's regular expressions overflow their stack on
runs of some hundred thousand characters. Llama 3's and Kimi's own tokenizers cut at the same length."""
_LONG_RUN = re.compile(rf"\s{{{MAX_RUN + 1}}}|\S{{{MAX_RUN + 1}}}")
_RUN = re.compile(rf"\s{{1,{MAX_RUN}}}|\S{{1,{MAX_RUN}}}")


class TiktokenTokenizer(BaseTokenizer):
    """A `jaxserve.text.tokenizers.tokenizer.Tokenizer` from a tiktoken vocabulary.

    Raises:
        ModelLoadError: the file is broken, or of a family whose pattern is not known.
    """

    def __init__(self, path: Path, files: ModelFiles) -> None:
        ranks = _read_ranks(path)
        family = find_family(files, path.stem, len(ranks))
        if family is None:
            known = ", ".join(known.name for known in FAMILIES)
            raise ModelLoadError(
                f"{path} has {len(ranks)} tokens, which is no known vocabulary ({known}): a tokenizer.json is needed."
            )
        self._nfc = family.nfc and files.tokenizer_class in family.tokenizer_classes
        self._added = _added_tokens(family, files, len(ranks))
        self._ids = {token.text: token.id for token in self._added.values()}
        self._splitter = SpecialSplitter(self._added.values())
        self._encoding = tiktoken.Encoding(path.stem, pat_str=family.pattern, mergeable_ranks=ranks, special_tokens={})
        self._ranks = ranks
        self._tokens = {rank: token for token, rank in ranks.items()}
        super().__init__(
            size=max(*self._tokens, *self._added) + 1,
            special_ids=(token.id for token in self._added.values() if token.special),
            names=_default_names(family, self._ids) | files.special_tokens,
            affixes=resolve_affixes(
                files,
                self.id_of,
                before=[self._ids[family.bos]] if family.adds_bos and family.bos in self._ids else [],
                bos_text=family.bos,
                eos_texts=family.eos,
            ),
        )
        self._kept_bytes = IdTable(lambda i: b"" if self.is_special(i) else self.token_bytes(i))
        self._bytes = IdTable(self.token_bytes)

    def stream(self, *, skip_special_tokens: bool) -> TokenStream:
        """A fresh incremental decoder."""
        return ByteStream((self._kept_bytes if skip_special_tokens else self._bytes).__getitem__)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes this token stands for."""
        if (token := self._added.get(token_id)) is not None:
            return token.text.encode("utf-8", "replace")
        return self._tokens.get(token_id, b"")

    def id_of(self, text: str) -> int | None:
        """Id of a special token, else of the vocabulary entry with exactly this text."""
        token_id = self._ids.get(text)
        return self._ranks.get(text.encode("utf-8", "replace")) if token_id is None else token_id

    def _encode(self, text: str, parse_special: bool) -> list[int]:
        if self._nfc and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        ids: list[int] = []
        for part in self._splitter.split(text) if parse_special else [text]:
            if isinstance(part, int):
                ids.append(part)
            else:
                for stretch in _without_long_runs(part):
                    ids += self._encoding.encode_ordinary(stretch)
        return ids


def is_tiktoken_file(path: Path) -> bool:
    """Whether a file begins like a tiktoken vocabulary (a SentencePiece model is binary)."""
    with path.open("rb") as file:
        return _LINE.fullmatch(file.readline(4096).rstrip()) is not None


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        try:
            token = base64.b64decode(match[1], validate=True) if match else b""
        except binascii.Error:
            token = b""
        if match is None or not token:
            raise ModelLoadError(f"{path}, line {number}: not a base64 token and its rank.")
        ranks[token] = int(match[2])
    if len(set(ranks.values())) != len(ranks):
        raise ModelLoadError(f"{path} gives one rank to two tokens.")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ModelLoadError(f"{path} has no token for the byte {missing[0]:#04x}.")
    return ranks


def _added_tokens(family: TiktokenFamily, files: ModelFiles, ranks: int) -> dict[int, AddedToken]:
    """The family's special tokens; where tokenizer_config.json names an id or a text, it wins."""
    stated = {token.id: token for token in files.added_tokens}
    texts = {token.text for token in files.added_tokens}
    added = {i: AddedToken(i, text, special=True) for i, text in family.specials(ranks).items() if text not in texts}
    return added | stated


def _default_names(family: TiktokenFamily, ids: dict[str, int]) -> dict[str, str]:
    names = {"bos_token": family.bos, "eos_token": family.eos[0] if family.eos else None}
    return {name: text for name, text in names.items() if text is not None and text in ids}


def _without_long_runs(text: str) -> Iterator[str]:
    """The text, cut where a run of white space or of other characters is longer than MAX_RUN."""
    if len(text) <= MAX_RUN or not _LONG_RUN.search(text):
        yield text
        return
    start = 0
    previous_space: bool | None = None
    for run in _RUN.finditer(text):
        space = run[0][0].isspace()
        if space is previous_space:  # two pieces of one run: the first was cut at MAX_RUN
            yield text[start : run.start()]
            start = run.start()
        previous_space = space
    yield text[start:]
