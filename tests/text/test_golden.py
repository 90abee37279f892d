"""Published tokenizers, token by token, against their publishers' own encodings."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import sentencepiece
import tokenizers

from jaxserve.text import IncrementalDetokenizer, load_tokenizer

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
