"""Trains the small tokenizers of tests/fixtures/tokenizers on text that this script writes. Deterministic.

    python scripts/make_tokenizer_fixtures.py

byte_level/            tokenizer.json: byte-level BPE with Llama 3's pre-tokenizer, BOS by post-processor
tiktoken/              the same merges as a tiktoken file, named tokenizer.model as Llama 3 ships it
sentencepiece/         tokenizer.model: BPE, byte fallback, white space kept, as Llama 2's
sentencepiece_squeeze/ tokenizer.model: the same with remove_extra_whitespaces
"""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from jaxserve.text.tokenizers.hf_decoder import byte_level_bytes
from jaxserve.text.tokenizers.tiktoken_families import FAMILIES

OUT = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "tokenizers"
SPECIAL = ["<|begin|>", "<|end|>", "<|turn|>"]
MARKERS = ["<tool_call>", "</tool_call>"]

PEOPLE = ["the fox", "a small dog", "Grandmother", "our captain", "the old clock", "Zoë", "Jürgen", "my friend"]
DEEDS = ["finds", "carries", "doesn't see", "paints", "has lost", "can't open", "sings about", "they've built"]
THINGS = ["a red ball", "seven keys", "the café", "naïve questions", "2 boats", "1984 stars", "snow ❄️", "x = f(y) + 42"]
LINES = ["日本語の文", "Привет, мир!", "مرحبا", "🦙🚀", "def f(x):\n    return x**2\n", "\t- item\n\n", '{"a": [1, 2]}']


def corpus(lines: int = 1500) -> list[str]:
    """Sentences put together at random, with some code, other scripts and white space."""
    rng = random.Random(20)
    made = []
    for _ in range(lines):
        text = f"{rng.choice(PEOPLE)} {rng.choice(DEEDS)} {rng.choice(THINGS)}"
        text = text[:1].upper() + text[1:] + rng.choice(".!?")
        made.append(text if rng.random() < 0.8 else f"{text}  {rng.choice(LINES)}")
    return made


def make_byte_level(texts: list[str], pattern: str) -> dict[str, int]:
    """Writes byte_level/; returns the vocabulary."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    vocabulary: dict[str, int] = library.get_vocab()
    library.add_special_tokens([tokenizers.AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    library.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in MARKERS])
    bos = SPECIAL[0]
    library.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, library.token_to_id(bos))]
    )
    folder = OUT / "byte_level"
    folder.mkdir(parents=True, exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": None})
    write_json(folder / "generation_config.json", {"eos_token_id": [library.token_to_id(text) for text in SPECIAL[1:]]})
    return vocabulary


def make_tiktoken(vocabulary: dict[str, int]) -> None:
    """Writes tiktoken/ from a byte-level vocabulary, whose ids are in the order of its merges."""
    folder = OUT / "tiktoken"
    folder.mkdir(parents=True, exist_ok=True)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    lines = [f"{base64.b64encode(byte_level_bytes(token)).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    (folder / "tokenizer.model").write_text("".join(lines))
    write_json(folder / "config.json", {"model_type": "llama"})


def make_sentencepiece(texts: list[str], name: str, squeeze: bool) -> None:
    """Writes sentencepiece/ or its white-space-squeezing twin."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=520,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=squeeze,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        control_symbols=["<|turn|>"],
        user_defined_symbols=["<tool_call>"],
        num_threads=1,
        minloglevel=2,
    )
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True})


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    texts = corpus()
    pattern = next(family.pattern for family in FAMILIES if family.name == "llama3")
    make_tiktoken(make_byte_level(texts, pattern))
    make_sentencepiece(texts, "sentencepiece", squeeze=False)
    make_sentencepiece(texts, "sentencepiece_squeeze", squeeze=True)
    total = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print(f"{OUT}: {total / 1000:.0f} kB")


if __name__ == "__main__":
    main()
