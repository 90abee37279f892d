"""Published tokenizers, token by token, against their publishers' own encodings."""

from __future__ import annotations

import base64
import csv
import itertools
import json
from pathlib import Path

import pytest
import regex
import sentencepiece
import tiktoken
import tokenizers

from jaxserve.text import IncrementalDetokenizer, load_tokenizer
from jaxserve.text.tokenizers.tiktoken_families import FAMILIES

GOLDEN = {
    "gpt2": "gpt2_r50k",
    "gpt_oss": "gpt_oss_o200k",
    "qwen": "qwen",
    "llama2": "llama2",
    "llama3": "llama3",
    "deepseek_v3": "deepseek_v3",
}


@pytest.fixture
def root(shared_dir: Path) -> Path:
    return shared_dir / "real"


def at_hand(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand")
    return path


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_encodings(root: Path, name: str) -> None:
    lines = at_hand(root / "tokenizers/golden" / f"{GOLDEN[name]}.jsonl").read_text(encoding="utf-8").splitlines()
    own = load_tokenizer(at_hand(root / "tokenizers" / name))
    assert lines
    for case in map(json.loads, lines):
        for parse_special in (False, True):
            ids = own.encode(case["text"], add_special_tokens=False, parse_special=parse_special)
            assert ids == case["ids"], case["text"]
        assert own.decode(case["ids"], skip_special_tokens=True) == case["decoded"]


@pytest.mark.parametrize(
    ("name", "file"), [("gpt2", "r50k_base_encodings.csv"), ("gpt_oss", "o200k_base_encodings.csv")]
)
def test_the_vocabularies_own_encodings(root: Path, name: str, file: str) -> None:
    own = load_tokenizer(at_hand(root / "tokenizers" / name))
    with at_hand(root / "tokenizers" / name / file).open(newline="", encoding="utf-8") as rows:
        cases = [(row["input"], json.loads(row["output"])) for row in csv.DictReader(rows)]
    assert len(cases) > 400
    for text, ids in cases:
        assert own.encode(text, add_special_tokens=False, parse_special=False) == ids


def golden_texts(root: Path) -> list[str]:
    """The texts of every golden file that is at hand, and of the vocabularies' own files."""
    texts: dict[str, None] = {}
    for file in sorted((root / "tokenizers/golden").glob("*.jsonl")):
        texts |= {json.loads(line)["text"]: None for line in file.read_text(encoding="utf-8").splitlines()}
    for file in sorted(root.glob("tokenizers/*/*_encodings.csv")):
        with file.open(newline="", encoding="utf-8") as rows:
            texts |= {row["input"]: None for row in csv.DictReader(rows)}
    if len(texts) < 400:
        pytest.skip("the golden files are not at hand")
    return list(texts)


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": LLAMA3,
    "qwen": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
}
"""As the publishers print them, in one piece."""


@pytest.mark.parametrize("name", PATTERNS)
def test_byte_pair_encoding_from_its_definition(root: Path, name: str) -> None:
    """Words by the publisher's pattern; in a word that is no token, the pair of lowest rank is joined, and so on."""
    (file,) = [path for path in at_hand(root / "tokenizers" / name).iterdir() if path.suffix in (".tiktoken", ".model")]
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}

    def word_ids(word: str) -> list[int]:
        parts = [bytes([byte]) for byte in word.encode()]
        while len(parts) > 1:
            pairs = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
            at = pairs.index(min(pairs))
            if pairs[at] == len(ranks):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if word.encode() in ranks:  # whatever pairs lead to
            return [ranks[word.encode()]]
        return [ranks[part] for part in parts]

    own = load_tokenizer(root / "tokenizers" / name)
    for text in golden_texts(root):
        ids = [token for word in regex.findall(PATTERNS[name], text) for token in word_ids(word)]
        assert own.encode(text, add_special_tokens=False, parse_special=False) == ids, text
        assert own.decode(ids, skip_special_tokens=True) == text


def test_deepseek_on_every_text(root: Path) -> None:
    directory = at_hand(root / "tokenizers/deepseek_v3")
    own, library = load_tokenizer(directory), tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in golden_texts(root):
        ids = library.encode(text, add_special_tokens=False).ids
        assert own.encode(text, add_special_tokens=False, parse_special=False) == ids, text
        assert own.decode(ids, skip_special_tokens=True) == library.decode(ids) == text


def test_llama2_on_every_text(root: Path) -> None:
    directory = at_hand(root / "tokenizers/llama2")
    own = load_tokenizer(directory)
    library = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    for text in golden_texts(root):
        ids = library.encode(text)
        assert own.encode(text, add_special_tokens=False, parse_special=False) == ids, text
        assert own.decode(ids, skip_special_tokens=True) == library.decode(ids), text


KIMI = (
    r"[\p{Han}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As its publisher prints it, in one piece."""


def test_words_of_kimi(root: Path) -> None:
    """Its vocabulary is not at hand; what its pattern makes words of shows through one that has the words as tokens."""
    family = next(family for family in FAMILIES if family.name == "kimi")
    texts = [*golden_texts(root), "中文English混合", "北京市 Pascal's", "漢字かなカナ", "HTTPServer's 1234567\r\n\n  x"]
    for text in texts:
        words = [match[0] for match in regex.finditer(KIMI, text, regex.V1)]
        assert "".join(words) == text
        ranks = {bytes([byte]): byte for byte in range(256)}
        for word in words:  # every beginning of a word, so that merges reach the whole word
            coded = word.encode()
            for length in range(2, len(coded) + 1):
                ranks.setdefault(coded[:length], len(ranks))
        encoding = tiktoken.Encoding("kimi", pat_str=family.pattern, mergeable_ranks=ranks, special_tokens={})
        assert [encoding.decode_bytes([token]) for token in encoding.encode_ordinary(text)] == [
            word.encode() for word in words
        ], text


TEXTS = [
    "Hello wörld",
    " 日本語の文 🦙",
    "def f(x):\n    return x ** 2\n",
    "12345 + 6.7",
    "a\u0301",
    "\u00a0x",
    "<s>",
    "  ",
]


@pytest.mark.parametrize("name", ["tokenizers/deepseek_v3", "models/stories260K", "models/TinyStories-656K"])
def test_tokenizer_json_as_the_library_reads_it(root: Path, name: str) -> None:
    directory = at_hand(root / name)
    own = load_tokenizer(directory)
    library = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in TEXTS:
        ids = library.encode(text, add_special_tokens=False).ids
        assert own.encode(text, add_special_tokens=False) == ids
        assert own.encode(text, add_special_tokens=True) == [own.bos_id, *ids]


def test_special_tokens_of_the_published_tokenizers(root: Path) -> None:
    llama3 = load_tokenizer(at_hand(root / "tokenizers/llama3"))
    assert llama3.vocab_size == 128_256
    assert (llama3.bos_id, llama3.eos_ids) == (128_000, (128_001, 128_008, 128_009))
    assert llama3.id_of("<|start_header_id|>") == 128_006
    harmony = load_tokenizer(at_hand(root / "tokenizers/gpt_oss"))
    assert harmony.vocab_size == 201_088
    assert [harmony.id_of(f"<|{name}|>") for name in ("return", "channel", "call")] == [200_002, 200_005, 200_012]
    deepseek = load_tokenizer(at_hand(root / "tokenizers/deepseek_v3"))
    assert (deepseek.bos_id, deepseek.eos_ids) == (0, (1,))
    assert deepseek.encode("<｜User｜>hi", add_special_tokens=True)[:2] == [0, deepseek.id_of("<｜User｜>")]
    llama2 = load_tokenizer(at_hand(root / "tokenizers/llama2"))
    assert llama2.encode("Hello world", add_special_tokens=True) == [1, 15043, 3186]


@pytest.mark.parametrize("name", ["gpt_oss", "qwen", "llama2", "llama3", "deepseek_v3"])
def test_every_special_token(root: Path, name: str) -> None:
    """Spelt out it is its own id where that is wanted, text where not, and nothing when special tokens are skipped."""
    own = load_tokenizer(at_hand(root / "tokenizers" / name))
    special = [token for token in range(own.vocab_size) if own.is_special(token)]
    assert len(special) >= (3 if name == "llama2" else 200)
    for token in special:
        text = own.token_text(token)
        assert own.id_of(text) == token
        assert own.decode([token], skip_special_tokens=True) == ""
        if name != "llama2":  # SentencePiece has no text for its control symbols
            assert own.encode(text, add_special_tokens=False) == [token]
            assert token not in own.encode(text, add_special_tokens=False, parse_special=False)
            assert own.decode([token], skip_special_tokens=False) == text
    assert set(own.eos_ids) <= set(special)


def test_stories260k(root: Path) -> None:
    """The prompts of its golden runs; a story ends with BOS, so both ids end a generation."""
    directory = at_hand(root / "models/stories260K")
    own = load_tokenizer(directory)
    assert own.eos_ids == (1, 2)
    model = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    for case in json.loads((directory / "golden.json").read_text())["cases"]:
        assert own.encode(case["prompt"], add_special_tokens=True) == case["prompt_ids"]
        detokenizer = IncrementalDetokenizer(own, skip_special_tokens=True)
        text = "".join(map(detokenizer.push, case["greedy_ids"])) + detokenizer.flush()
        assert text == case["greedy_text"] == model.decode(case["greedy_ids"])


def test_stories260k_from_its_sentencepiece_model_alone(root: Path, tmp_path: Path) -> None:
    directory = at_hand(root / "models/stories260K")
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json", "config.json"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    one, other = load_tokenizer(directory), load_tokenizer(tmp_path)
    assert type(one) is not type(other)
    for text in ["", "Once upon a time", " two  spaces", "日本", "Tom\n", "a</s> b", "</s>"]:
        for add in (False, True):
            ids = one.encode(text, add_special_tokens=add)
            assert other.encode(text, add_special_tokens=add) == ids
            for skip in (False, True):
                expected = one.decode(ids, skip_special_tokens=skip)
                assert other.decode(ids, skip_special_tokens=skip) == expected


def test_tinystories_special_tokens_are_normalised(root: Path) -> None:
    """Glued to a word, its end marker is ordinary text (the normaliser prefixes it); as a token it is skipped."""
    own = load_tokenizer(at_hand(root / "models/TinyStories-656K"))
    end = own.id_of("<|end_story|>")
    assert own.eos_ids == (end,) == (2,)
    assert 2 not in own.encode("the end<|end_story|>", add_special_tokens=False)
    ids = [*own.encode("the end", add_special_tokens=False), 2]
    assert own.decode(ids, skip_special_tokens=True) == "the end"
    assert own.decode(ids, skip_special_tokens=False) == "the end<|end_story|>"
    assert own.token_bytes(2) == b"<|end_story|>"
    assert 2 not in own.encode("x <|end_story|> y", add_special_tokens=False, parse_special=False)
