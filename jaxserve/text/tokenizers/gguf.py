"""The tokenizer and chat template in the fields of a GGUF file, as the files that `load_tokenizer` reads.

`tokenizer.ggml.model` says the kind: "gpt2" is byte-level BPE and becomes a tokenizer.json, "llama" is SentencePiece's
BPE and becomes a tokenizer.model. Of the first kind a file names how a text is cut into words ("pre"), not how it does
that: the expressions here are those of the tokenizers it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxserve.errors import ModelLoadError
from jaxserve.text.tokenizers.gguf_sentencepiece import sentencepiece_model
from jaxserve.text.tokenizers.gguf_words import PRE_TOKENIZERS

_FIELD = "tokenizer.ggml."
_CONTROL, _USER_DEFINED = 3, 4
_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_ENDS_OF_TURNS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<|return|>", "<|call|>", "<|user|>", "<|observation|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>"),
)
"""Texts of control tokens that end an answer in the families read here; files name one or two of a model's own."""
_HARMONY = ("<|return|>", "<|call|>")
"""Where these exist, <|end|> ends a message only."""


def write_tokenizer(fields: Mapping[str, Any], directory: Path) -> None:
    """Write tokenizer files, generation_config.json and chat_template.jinja of a GGUF file's fields.

    Raises:
        ModelLoadError: no tokenizer, or one of a kind that can't be read.
    """
    kind = fields.get(f"{_FIELD}model")
    tokens = fields.get(f"{_FIELD}tokens")
    if kind not in _WRITERS or not isinstance(tokens, list):
        raise ModelLoadError(f"The GGUF file has a tokenizer of kind {kind!r} (supported: {', '.join(_WRITERS)}).")
    _WRITERS[kind](fields, tokens, directory)
    _write(directory / "tokenizer_config.json", _tokenizer_config(fields, tokens))
    _write(directory / "generation_config.json", {"eos_token_id": list(_ends(fields, tokens))})
    template = fields.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _id(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(f"{_FIELD}{name}_token_id")
    return None if value is None else int(value)


def _types(fields: Mapping[str, Any], tokens: list[str]) -> list[int]:
    types = fields.get(f"{_FIELD}token_type")
    if types is None or len(types) != len(tokens):
        raise ModelLoadError("The GGUF file doesn't say of every token what it is (tokenizer.ggml.token_type).")
    return [int(kind) for kind in types]


def _tokenizer_config(fields: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    """Named tokens, and what is put around a text."""
    ids = {name: _id(fields, theirs) for name, theirs in _NAMED.items()}
    named = {name: tokens[i] for name, i in ids.items() if i is not None and 0 <= i < len(tokens)}
    flags = {
        f"add_{end}_token": bool(fields[f"{_FIELD}add_{end}_token"])
        for end in ("bos", "eos")
        if f"{_FIELD}add_{end}_token" in fields
    }
    spaces = fields.get(f"{_FIELD}model") == "llama"
    usual = {"add_bos_token": spaces or fields.get(f"{_FIELD}pre") in _BEGIN_WITH_BOS, "add_eos_token": False}
    return {**named, **usual, **flags, "legacy": False}


_BEGIN_WITH_BOS = ("llama-bpe", "llama3", "llama-v3", "tekken", "deepseek-v3", "deepseek-llm")
"""Cuts into words of models whose texts begin with BOS where a file doesn't say."""


def _ends(fields: Mapping[str, Any], tokens: list[str]) -> Iterator[int]:
    """Tokens that end an answer, ascending."""
    types = _types(fields, tokens)
    ends = {i for name in ("eos", "eot", "eom") if (i := _id(fields, name)) is not None}
    texts = set(_ENDS_OF_TURNS) - ({"<|end|>"} if set(_HARMONY) <= set(tokens) else set())
    ends |= {i for i, token in enumerate(tokens) if token in texts and types[i] == _CONTROL}
    yield from sorted(ends)


def _write_bpe(fields: Mapping[str, Any], tokens: list[str], directory: Path) -> None:
    """tokenizer.json of byte-level BPE."""
    words = PRE_TOKENIZERS.get(str(fields.get(f"{_FIELD}pre", "default")))
    if words is None:
        known = ", ".join(PRE_TOKENIZERS)
        raise ModelLoadError(
            f"The GGUF file cuts words as {fields.get(f'{_FIELD}pre')!r} does (tokenizer.ggml.pre; supported: {known})."
        )
    types = _types(fields, tokens)
    added = [i for i, kind in enumerate(types) if kind in (_CONTROL, _USER_DEFINED)]
    merges = [merge.split(" ", 1) for merge in fields.get(f"{_FIELD}merges", ())]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": words.gpt2}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [_added(i, tokens[i], special=types[i] == _CONTROL) for i in added],
        "normalizer": {"type": "NFC"} if words.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*words.steps(), byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "ignore_merges": words.whole_words,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    _write(directory / "tokenizer.json", tokenizer)


def _added(token_id: int, text: str, *, special: bool) -> dict[str, Any]:
    stays = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": text, "special": special, **stays}


def _write_sentencepiece(fields: Mapping[str, Any], tokens: list[str], directory: Path) -> None:
    """tokenizer.model of SentencePiece."""
    scores = fields.get(f"{_FIELD}scores")
    if scores is None or len(scores) != len(tokens):
        raise ModelLoadError("The GGUF file has no score for every token (tokenizer.ggml.scores).")
    special = {name: _id(fields, theirs) for name, theirs in _NAMED.items()}
    model = sentencepiece_model(
        tokens,
        [float(score) for score in scores],
        _types(fields, tokens),
        {name.removesuffix("_token"): i for name, i in special.items()},
        leading_space=bool(fields.get(f"{_FIELD}add_space_prefix", True)),
    )
    (directory / "tokenizer.model").write_bytes(model)


_WRITERS = {"gpt2": _write_bpe, "llama": _write_sentencepiece}
