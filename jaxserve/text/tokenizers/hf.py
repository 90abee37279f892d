"""tokenizer.json, through the library `tokenizers`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import tokenizers

from jaxserve.errors import ModelLoadError
from jaxserve.text.tokenizers.base import BaseTokenizer, IdTable
from jaxserve.text.tokenizers.hf_decoder import DecoderPlan, compile_decoder
from jaxserve.text.tokenizers.model_files import ModelFiles
from jaxserve.text.tokenizers.special import resolve_affixes
from jaxserve.text.tokenizers.streams import ByteStream, PieceRules, PieceStream, TokenStream

_LONG = 2000
"""Characters from which a text is encoded as a batch of one, which lets other threads run meanwhile and finds no
offsets: 1.0 s a megabyte; `encode` takes 5.8 s with the interpreter's lock held (DeepSeek V3's tokenizer)."""


class HfTokenizer(BaseTokenizer):
    """A `jaxserve.text.tokenizers.tokenizer.Tokenizer` from tokenizer.json.

    Raises:
        ModelLoadError: the file is broken, contradicts tokenizer_config.json, or has a decoder that can't be streamed.
    """

    def __init__(self, path: Path, files: ModelFiles) -> None:
        self._path = path
        self._library = _load(path)
        _add_missing(self._library, files)
        self._plan = compile_decoder(_decoder_config(self._library))
        added = self._library.get_added_tokens_decoder()
        # A "normalized" added token comes back from id_to_token as its normalised form ("▁<s>"): keep the real text.
        self._added = {token_id: token.content for token_id, token in added.items()}
        flags = {token_id: token.special for token_id, token in added.items()}
        flags |= {token.id: token.special for token in files.added_tokens if token.id in flags}
        before, after = _post_processor_ids(self._library)
        super().__init__(
            size=max(self._library.get_vocab(with_added_tokens=True).values(), default=-1) + 1,
            special_ids=(token_id for token_id, special in flags.items() if special),
            names=files.special_tokens,
            affixes=resolve_affixes(files, self.id_of, before=before, after=after),
        )
        self._bytes = IdTable(self._compute_bytes)
        self._kept_bytes = IdTable(lambda i: b"" if self.is_special(i) else self._bytes[i])
        self._rules = {skip: self._piece_rules(skip) for skip in (False, True)}
        self._plain_lock = threading.Lock()
        self._plain: tokenizers.Tokenizer | None = None

    def stream(self, *, skip_special_tokens: bool) -> TokenStream:
        """A fresh incremental decoder."""
        if self._plan.byte_level:
            table = self._kept_bytes if skip_special_tokens else self._bytes
            return ByteStream(table.__getitem__)
        return PieceStream(self._rules[skip_special_tokens])

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes this token stands for inside a text."""
        return self._bytes[token_id]

    def id_of(self, text: str) -> int | None:
        """Id of an added token or vocabulary entry, by its text as the file spells it."""
        token_id: int | None = self._library.token_to_id(text)
        return token_id

    def _encode(self, text: str, parse_special: bool) -> list[int]:
        library = self._library if parse_special else self._plain_library()
        if len(text) > _LONG:
            ids: list[int] = library.encode_batch_fast([text], add_special_tokens=False)[0].ids
        else:
            ids = library.encode(text, add_special_tokens=False).ids
        return ids

    def _plain_library(self) -> tokenizers.Tokenizer:
        """The same tokenizer without its added tokens, made when first needed."""
        with self._plain_lock:
            if self._plain is None:
                self._plain = _without_added_tokens(self._path)
            return self._plain

    def _compute_bytes(self, token_id: int) -> bytes:
        token = self._token(token_id)
        return b"" if token is None else self._plan.bytes_of(token)

    def _token(self, token_id: int) -> str | None:
        if not 0 <= token_id < self._size:
            return None
        token: str | None = self._added.get(token_id) or self._library.id_to_token(token_id)
        return token

    def _piece_rules(self, skip: bool) -> PieceRules:
        def piece(token_id: int) -> str | bytes | None:
            token = None if skip and self.is_special(token_id) else self._token(token_id)
            return None if token is None else plan.piece(token)

        def first(token_id: int) -> str | bytes | None:
            token = None if skip and self.is_special(token_id) else self._token(token_id)
            return None if token is None else plan.first_piece(token)

        plan: DecoderPlan = self._plan
        return PieceRules(
            IdTable(piece).__getitem__,
            IdTable(first).__getitem__,
            strip_start=plan.strip_start,
            strip_stop=plan.strip_stop,
            separator=plan.separator,
        )


def _load(path: Path) -> tokenizers.Tokenizer:
    try:
        library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelLoadError(f"{path} is not a usable tokenizer: {error}") from error
    library.no_truncation()
    library.no_padding()
    return library


def _add_missing(library: tokenizers.Tokenizer, files: ModelFiles) -> None:
    """Tokens that only tokenizer_config.json lists, and named special tokens that are plain entries."""
    known = {token.content for token in library.get_added_tokens_decoder().values()}
    for token in files.added_tokens:
        if token.text in known:
            continue
        entry = tokenizers.AddedToken(
            token.text, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=token.special
        )
        library.add_tokens([entry])
        if library.token_to_id(token.text) != token.id:
            raise ModelLoadError(
                f"tokenizer_config.json gives {token.text!r} the id {token.id}, which does not fit tokenizer.json."
            )
        known.add(token.text)
    for text in [*files.special_tokens.values(), *files.extra_special_texts]:
        if text not in known and library.token_to_id(text) is not None:
            library.add_special_tokens([tokenizers.AddedToken(text, normalized=False, special=True)])


def _decoder_config(library: tokenizers.Tokenizer) -> dict[str, Any] | None:
    decoder = library.decoder
    if decoder is None:
        return None
    config: dict[str, Any] = json.loads(decoder.__getstate__())
    return config


def _post_processor_ids(library: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """What the post-processor puts before and after a text, seen on a sample."""
    bare = library.encode("a", add_special_tokens=False).ids
    full = library.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        end = start + len(bare)
        if full[start:end] == bare:
            return full[:start], full[end:]
    return [], []


def _without_added_tokens(path: Path) -> tokenizers.Tokenizer:
    """A tokenizer in which special tokens are ordinary text (added white space stays: it controls nothing).

    A Unigram model would still pick a special piece as the best segmentation: there its text is made unspellable.
    """
    state = json.loads(path.read_text(encoding="utf-8"))
    added = state.get("added_tokens") or []
    state["added_tokens"] = [token for token in added if not token["content"].strip(" \t\r\n▁")]
    if state["model"].get("type") == "Unigram":
        hidden = {token["content"] for token in added}
        pieces = state["model"]["vocab"]
        state["model"]["vocab"] = [[f"\0{p}" if p in hidden else p, score] for p, score in pieces]
    library = tokenizers.Tokenizer.from_str(json.dumps(state))
    library.no_truncation()
    library.no_padding()
    return library
