"""Streaming gives what decoding at once gives, never a broken character, in constant work per token."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
import tokenizers

from jaxserve.text import IncrementalDetokenizer, Tokenizer

WORDS = [
    "The fox finds",
    " a ball",
    "  two",
    "é",
    "日本",
    "🦙",
    "👩‍👩‍👧",
    "\n\n",
    "\t",
    "<|turn|>",
    "</s>",
    "<|im_end|>",
    "x",
]


def sequences(own: Tokenizer, count: int, seed: int) -> Iterator[list[int]]:
    """Random ids, ids of text cut anywhere, runs of single bytes, special tokens, mixed."""
    rng = random.Random(seed)
    size = own.vocab_size
    special = [i for i in [*range(min(size, 4000)), size - 1] if own.is_special(i)] or [0]
    single = [i for i in range(min(size, 600)) if len(own.token_bytes(i)) == 1]
    for _ in range(count):
        ids: list[int] = []
        for _ in range(rng.randint(0, 5)):
            kind = rng.randrange(5)
            if kind == 0:
                ids += [rng.randrange(size + 2) for _ in range(rng.randint(1, 4))]
            elif kind == 1:
                text = own.encode("".join(rng.choices(WORDS, k=3)), add_special_tokens=rng.random() < 0.3)
                start = rng.randint(0, len(text))
                ids += text[start : rng.randint(start, len(text))]
            elif kind == 2:
                ids += rng.choices(single, k=rng.randint(1, 5))
            elif kind == 3:
                bytes_of_a_character = rng.choice("é日🦙").encode()
                ids += [i for byte in bytes_of_a_character for i in single if own.token_bytes(i) == bytes([byte])]
            else:
                ids += rng.choices(special, k=rng.randint(1, 2))
        yield ids


def streamed(own: Tokenizer, ids: list[int], *, skip: bool, prefix: list[int] | None = None) -> str:
    detokenizer = IncrementalDetokenizer(own, skip_special_tokens=skip, prefix_ids=prefix or [])
    return "".join(detokenizer.push(i) for i in ids) + detokenizer.flush()


def check_law(own: Tokenizer, count: int) -> None:
    for seed, ids in enumerate(sequences(own, count, seed=1)):
        skip = seed % 2 == 0
        assert streamed(own, ids, skip=skip) == own.decode(ids, skip_special_tokens=skip)


def check_library(own: Tokenizer, directory: Path, count: int) -> None:
    """The decoding at once is the published library's (where it doesn't lose characters of a partly broken run)."""
    for seed, ids in enumerate(sequences(own, count, seed=2)):
        ids = [i for i in ids if i < own.vocab_size]
        skip = seed % 2 == 0
        expected = reference(own, directory, ids, skip)
        if expected is not None:
            assert own.decode(ids, skip_special_tokens=skip) == expected, ids


@cache
def json_library(path: Path) -> tuple[tokenizers.Tokenizer, dict[int, tokenizers.AddedToken]]:
    library = tokenizers.Tokenizer.from_file(str(path))
    return library, library.get_added_tokens_decoder()


@cache
def model_library(path: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def reference(own: Tokenizer, directory: Path, ids: list[int], skip: bool) -> str | None:
    json_file, model_file = directory / "tokenizer.json", directory / "tokenizer.model"
    if json_file.is_file():
        library, added = json_library(json_file)
        if any(added[i].normalized for i in ids if i in added):
            return None  # the library gives such a token's normalised text, and does not skip it
        kept = [i for i in ids if not (skip and i in added and added[i].special)]
        return None if partly_broken(library, kept) else str(library.decode(ids, skip_special_tokens=skip))
    if own.token_bytes(0) == b"<unk>":
        if not skip or 0 in ids:
            return None  # the library has no text for control tokens, and one of its own for unknown
        return str(model_library(model_file).decode(ids))
    return b"".join(own.token_bytes(i) for i in ids if not (skip and own.is_special(i))).decode("utf-8", "replace")


def partly_broken(library: tokenizers.Tokenizer, ids: list[int]) -> bool:
    """Whether a run of byte-fallback tokens holds complete characters and broken bytes (see `streams.PieceStream`)."""
    run, runs = b"", []
    for token in [*map(library.id_to_token, ids), "end"]:
        if token is not None and (match := re.fullmatch(r"<0x(..)>", token)):
            run += bytes([int(match[1], 16)])
        else:
            runs.append(run)
            run = b""
    decoded = (run.decode("utf-8", "replace") for run in runs)
    return any("\ufffd" in text and text.strip("\ufffd") for text in decoded)


def test_stream_equals_decode(own: Tokenizer) -> None:
    check_law(own, 1500)


def test_decode_equals_the_library(own: Tokenizer, own_dir: Path) -> None:
    check_library(own, own_dir, 1500)


def test_stream_equals_decode_on_published_tokenizers(real: Tokenizer) -> None:
    check_law(real, 600)


def test_decode_equals_the_library_on_published_tokenizers(real: Tokenizer, real_dir: Path) -> None:
    check_library(real, real_dir, 600)


def test_a_character_comes_out_whole_and_at_once(own: Tokenizer) -> None:
    single = {own.token_bytes(i): i for i in reversed(range(own.vocab_size)) if len(own.token_bytes(i)) == 1}
    detokenizer = IncrementalDetokenizer(own, skip_special_tokens=True)
    out = [detokenizer.push(single[bytes([byte])]) for byte in "a🦙é".encode()]
    assert out == ["a", "", "", "", "🦙", "", "é"]
    assert detokenizer.flush() == ""


def test_broken_bytes(own: Tokenizer) -> None:
    single = {own.token_bytes(i): i for i in reversed(range(own.vocab_size)) if len(own.token_bytes(i)) == 1}
    ids = [single[bytes([byte])] for byte in b"\xff\xe6\x97a\xe6"]
    expected = "\ufffd\ufffd\ufffda\ufffd" if own.token_bytes(0) == b"<unk>" else "\ufffd\ufffda\ufffd"
    assert streamed(own, ids, skip=True) == expected == own.decode(ids, skip_special_tokens=True)
    detokenizer = IncrementalDetokenizer(own, skip_special_tokens=True)
    assert [detokenizer.push(i) for i in ids[:3]] == ["\ufffd", "", ""]


# -- continuing a prompt ----------------------------------------------------------------------------------------------


def test_completion_continues_its_prompt(own: Tokenizer) -> None:
    for seed, prompt in enumerate(sequences(own, 600, seed=3)):
        ids = next(sequences(own, 1, seed=seed))
        before = own.decode(prompt, skip_special_tokens=True)
        whole = own.decode(prompt + ids, skip_special_tokens=True)
        if before.endswith("\ufffd"):
            continue  # a character begun in the prompt: see below
        assert streamed(own, ids, skip=True, prefix=prompt) == whole[len(before) :]


def test_long_prompts_are_read_at_their_ends_only(own: Tokenizer) -> None:
    prompt = own.encode("The fox finds a ball. " * 50, add_special_tokens=True)
    ids = own.encode("The fox", add_special_tokens=False)
    reads = 0

    class Counting:
        def __init__(self) -> None:
            self.inner = own.stream(skip_special_tokens=True)
            self.flush, self.pending = self.inner.flush, self.inner.pending

        def push(self, token_id: int) -> str:
            nonlocal reads
            reads += 1
            return self.inner.push(token_id)

    class Wrapped:
        def stream(self, *, skip_special_tokens: bool) -> Counting:
            return Counting()

    detokenizer = IncrementalDetokenizer(Wrapped(), skip_special_tokens=True, prefix_ids=prompt)  # type: ignore[arg-type]
    assert reads <= 12
    whole = own.decode([*prompt, *ids], skip_special_tokens=True)
    assert whole.endswith("".join(map(detokenizer.push, ids)))


def test_first_word_after_a_prompt_keeps_its_space(own: Tokenizer) -> None:
    prompt = own.encode("The fox", add_special_tokens=True)
    whole = own.encode("The fox finds", add_special_tokens=True)
    assert whole[: len(prompt)] == prompt
    assert streamed(own, whole[len(prompt) :], skip=True, prefix=prompt) == " finds"
    assert streamed(own, whole[1:], skip=True, prefix=whole[:1]) == "The fox finds"


def test_a_character_begun_in_the_prompt(own: Tokenizer) -> None:
    single = {own.token_bytes(i): i for i in reversed(range(own.vocab_size)) if len(own.token_bytes(i)) == 1}
    llama = [single[bytes([byte])] for byte in "🦙".encode()]
    letter = single[b"a"]
    for cut in (1, 2, 3):
        prompt = [letter] * 20 + llama[:cut]
        assert streamed(own, llama[cut:], skip=True, prefix=prompt) == "🦙"
        assert streamed(own, [letter], skip=True, prefix=prompt) == "a"  # the prompt's own text has the U+FFFD
        assert streamed(own, [], skip=True, prefix=prompt) == ""


# -- cost -------------------------------------------------------------------------------------------------------------


def test_constant_work_per_token(own: Tokenizer) -> None:
    """Pushing 32 times as many tokens takes about 32 times as long (quadratic work: 1024), broken bytes included."""
    byte = next(i for i in range(own.vocab_size) if own.token_bytes(i) in (b"\x80", b"\xff"))
    for token in (own.encode("fox", add_special_tokens=False)[-1], byte):
        short, long = (min(seconds(own, [token] * count) for _ in range(5)) for count in (1_000, 32_000))
        assert long < 32 * short * 8


def seconds(own: Tokenizer, ids: list[int]) -> float:
    detokenizer = IncrementalDetokenizer(own, skip_special_tokens=True)
    start = time.thread_time()
    for token in ids:
        detokenizer.push(token)
    return time.thread_time() - start


def test_streams_are_independent(own: Tokenizer) -> None:
    ids = own.encode("日本 fox", add_special_tokens=False)
    streams = [IncrementalDetokenizer(own, skip_special_tokens=True) for _ in range(2)]
    texts = ["", ""]
    for token in ids:
        for index, stream in enumerate(streams):
            texts[index] += stream.push(token)
    assert texts == ["日本 fox"] * 2


def test_unknown_skipped_and_kept_special_tokens(fixtures: Path, own: Tokenizer) -> None:
    special = next(i for i in range(own.vocab_size) if own.is_special(i))
    ids = [special, *own.encode("The fox", add_special_tokens=False), special]
    assert streamed(own, ids, skip=True) == "The fox"
    kept = streamed(own, ids, skip=False)
    assert kept.startswith(own.token_text(special))
    assert kept.endswith("The fox" + own.token_text(special))


@pytest.mark.parametrize("name", ["sentencepiece", "sentencepiece_squeeze"])
def test_only_the_first_words_space_is_dropped(fixtures: Path, name: str) -> None:
    from jaxserve.text import load_tokenizer

    own = load_tokenizer(fixtures / name)
    fox = own.id_of("▁f")
    assert fox is not None
    assert own.decode([1, fox, fox], skip_special_tokens=True) == "f f"
    assert own.decode([1, fox, 2, fox], skip_special_tokens=True) == "f f"
