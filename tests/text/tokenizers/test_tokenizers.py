"""Our own small tokenizers: encoding, special tokens, BOS and EOS, token bytes, broken files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxserve.errors import ModelLoadError
from jaxserve.text import Tokenizer, load_tokenizer
from jaxserve.text.tokenizers.tiktoken_bpe import MAX_RUN
from jaxserve.text.tokenizers.tiktoken_families import FAMILIES

Write = Callable[..., Path]
TEXTS = [
    "",
    " ",
    "The fox finds 2 boats.",
    "  two  spaces ",
    "日本 🦙\n\n",
    "def f(x):\n\treturn",
    "é",
    "<",
    "a\x00b",
    "▁x",
]


@pytest.mark.parametrize("text", [t for t in TEXTS if "▁" not in t])
def test_decoding_undoes_encoding(own: Tokenizer, own_dir: Path, text: str) -> None:
    if own_dir.name == "sentencepiece_squeeze":
        text = " ".join(part for part in text.split(" ") if part)  # what this model does to text
    for add in (False, True):
        ids = own.encode(text, add_special_tokens=add)
        assert own.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("text", TEXTS)
def test_libraries_agree(fixtures: Path, text: str) -> None:
    byte_level = tokenizers.Tokenizer.from_file(str(fixtures / "byte_level/tokenizer.json"))
    ours = load_tokenizer(fixtures / "byte_level")
    assert ours.encode(text, add_special_tokens=True) == byte_level.encode(text).ids
    spm = sentencepiece.SentencePieceProcessor(model_file=str(fixtures / "sentencepiece/tokenizer.model"))
    assert load_tokenizer(fixtures / "sentencepiece").encode(text, add_special_tokens=True) == [1, *spm.encode(text)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_tiktoken_file_and_tokenizer_json_of_one_vocabulary_agree(pair: list[Tokenizer], text: str) -> None:
    one, other = (own.encode(text, add_special_tokens=False, parse_special=False) for own in pair)
    assert one == other


@pytest.fixture(scope="module")
def pair() -> list[Tokenizer]:
    root = Path(__file__).resolve().parents[2] / "fixtures" / "tokenizers"
    return [load_tokenizer(root / name) for name in ("byte_level", "tiktoken")]


SPECIALS = {
    "byte_level": "<|turn|>",
    "tiktoken": "<|eot_id|>",
    "sentencepiece": "<|turn|>",
    "sentencepiece_squeeze": "</s>",
}


def test_special_tokens_are_found_in_text_only_when_wanted(own: Tokenizer, own_dir: Path) -> None:
    special = SPECIALS[own_dir.name]
    special_id = own.id_of(special)
    assert special_id is not None
    assert own.is_special(special_id)
    text = f"The fox{special}finds"
    assert own.encode(text, add_special_tokens=False).count(special_id) == 1
    safe = own.encode(text, add_special_tokens=False, parse_special=False)
    assert not any(own.is_special(i) for i in safe)
    assert own.decode(safe, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
def test_markers_that_are_not_special_are_also_ordinary_text_when_wanted(fixtures: Path, name: str) -> None:
    own = load_tokenizer(fixtures / name)
    marker = own.id_of("<tool_call>")
    assert marker is not None
    assert not own.is_special(marker)
    text = "see<tool_call>here <tool_call>"
    assert own.encode(text, add_special_tokens=False).count(marker) == 2
    safe = own.encode(text, add_special_tokens=False, parse_special=False)
    assert marker not in safe
    assert own.decode(safe, skip_special_tokens=False) == text


def test_token_bytes_add_up_to_the_text(own: Tokenizer) -> None:
    text = "The fox finds 日本 🦙 é\n"
    ids = own.encode(text, add_special_tokens=False)
    joined = b"".join(own.token_bytes(i) for i in ids).decode()
    assert joined.removeprefix(" ") == text
    assert own.token_bytes(own.vocab_size) == b""
    assert own.token_bytes(-1) == b""
    assert own.token_text(own.vocab_size + 7) == ""


def test_token_bytes_of_byte_fallback_spaces_and_special_tokens(fixtures: Path) -> None:
    spm = load_tokenizer(fixtures / "sentencepiece")
    newline = spm.id_of("<0x0A>")
    assert newline is not None
    assert spm.token_bytes(newline) == b"\n"
    assert spm.token_bytes(1) == b"<s>"
    space = spm.id_of("▁")
    assert space is not None
    assert spm.token_bytes(space) == b" "
    byte = spm.id_of("<0xE2>")
    assert byte is not None
    assert spm.token_bytes(byte) == b"\xe2"
    assert spm.token_text(byte) == "\ufffd"


def test_ids_beyond_the_vocabulary_decode_to_nothing(own: Tokenizer) -> None:
    ids = own.encode("The fox", add_special_tokens=False)
    assert own.decode([*ids, own.vocab_size, own.vocab_size + 99], skip_special_tokens=False) == "The fox"


def test_lone_surrogates_become_replacement_characters(own: Tokenizer) -> None:
    ids = own.encode("a\ud800b \ud83e\udd99", add_special_tokens=False)
    assert own.decode(ids, skip_special_tokens=True) == "a\ufffdb 🦙"


@pytest.mark.parametrize("run", [" ", "x", "\n", "日"])
def test_very_long_runs_are_encoded(fixtures: Path, run: str) -> None:
    """The tiktoken library overflows its stack on a million spaces."""
    own = load_tokenizer(fixtures / "tiktoken")
    text = "fox " + run * 1_000_000 + " fox"
    ids = own.encode(text, add_special_tokens=False)
    assert own.decode(ids, skip_special_tokens=True) == text


def test_long_runs_are_cut_where_llama3_cuts_them(fixtures: Path) -> None:
    own = load_tokenizer(fixtures / "tiktoken")

    def encode(text: str) -> list[int]:
        return own.encode(text, add_special_tokens=False)

    run = "the" * 12_000
    cut = [*encode("fox " + run[:MAX_RUN]), *encode(run[MAX_RUN:])]
    assert encode("fox " + run) == cut
    short = "fox " + run[:MAX_RUN]
    whole = tiktoken.Encoding(
        "check",
        pat_str=FAMILIES[0].pattern,
        mergeable_ranks={own.token_bytes(i): i for i in range(470)},
        special_tokens={},
    )
    assert encode(short) == whole.encode_ordinary(short)
    assert whole.encode_ordinary("fox " + run) != cut


# -- BOS and EOS ------------------------------------------------------------------------------------------------------


def test_affixes_of_our_fixtures(fixtures: Path) -> None:
    byte_level = load_tokenizer(fixtures / "byte_level")
    assert byte_level.bos_id == byte_level.id_of("<|begin|>")
    assert byte_level.eos_ids == (byte_level.id_of("<|end|>"), byte_level.id_of("<|turn|>"))
    assert dict(byte_level.special_tokens) == {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    llama3 = load_tokenizer(fixtures / "tiktoken")
    assert [llama3.token_text(i) for i in llama3.eos_ids] == ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]
    assert llama3.encode("", add_special_tokens=True) == [llama3.bos_id]


@pytest.mark.parametrize(("bos", "eos"), [(True, True), (True, False), (False, True), (False, False)])
def test_add_flags_decide(own_dir: Path, model_dir: Write, bos: bool, eos: bool) -> None:
    config = json.loads((own_dir / "tokenizer_config.json").read_text()) if own_dir.name != "tiktoken" else {}
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"} if not config else {}
    directory = model_dir(own_dir, tokenizer_config={**config, **names, "add_bos_token": bos, "add_eos_token": eos})
    own = load_tokenizer(directory)
    end = own.id_of(own.special_tokens["eos_token"])
    bare = own.encode("The fox", add_special_tokens=False)
    expected = [own.bos_id] * bos + bare + [end] * eos
    assert own.encode("The fox", add_special_tokens=True) == expected


def test_eos_ids_are_united(model_dir: Write, fixtures: Path) -> None:
    directory = model_dir(
        fixtures / "byte_level",
        config={"eos_token_id": 5, "text_config": {"eos_token_id": [6, 7]}},
        generation_config={"eos_token_id": [7, 8]},
    )
    own = load_tokenizer(directory)
    assert own.eos_ids == (5, 6, 7, 8, own.id_of("<|end|>"))


def test_no_bos_when_the_files_say_null(model_dir: Write, fixtures: Path) -> None:
    directory = model_dir(fixtures / "sentencepiece", tokenizer_config={"bos_token": None}, config={"bos_token_id": 1})
    assert load_tokenizer(directory).bos_id is None


def test_bos_from_config_when_the_tokenizer_files_are_silent(model_dir: Write, fixtures: Path) -> None:
    directory = model_dir(fixtures / "byte_level", tokenizer_config={}, config={"bos_token_id": 9})
    assert load_tokenizer(directory).bos_id == 9


def test_legacy_prefix_after_special_tokens(model_dir: Write, fixtures: Path) -> None:
    """SentencePiece's dummy space begins every stretch of text, or with `legacy: false` only the text."""
    fox = [load_tokenizer(fixtures / "sentencepiece").id_of(text) for text in ("▁fox", "fox")]
    for legacy in (True, False):
        own = load_tokenizer(model_dir(fixtures / "sentencepiece", tokenizer_config={"legacy": legacy}))
        ids = own.encode("fox</s>fox", add_special_tokens=False)
        rest = ids[ids.index(2) + 1 :]
        assert own.decode([3, *rest], skip_special_tokens=False)[len("<|turn|>") :] == (" fox" if legacy else "fox")
        assert own.decode(ids, skip_special_tokens=False).startswith("fox")
    assert fox[0] is not None


def test_added_tokens_of_tokenizer_config(model_dir: Write, fixtures: Path) -> None:
    added = {
        "470": {"content": "<|begin_of_text|>", "special": True},
        "480": {"content": "<think>", "special": False, "lstrip": True, "rstrip": True},
        "9000": {"content": "<image>", "special": True},
    }
    own = load_tokenizer(model_dir(fixtures / "tiktoken", tokenizer_config={"added_tokens_decoder": added}))
    assert own.vocab_size == 9001
    assert own.id_of("<think>") == 480
    assert not own.is_special(480)
    assert own.is_special(9000)
    ids = own.encode("a  <think> \n b<image>", add_special_tokens=False)
    assert own.decode(ids, skip_special_tokens=True) == "a<think>b"
    assert ids[-1] == 9000


def test_a_token_that_only_tokenizer_config_has_is_added_to_tokenizer_json(model_dir: Write, fixtures: Path) -> None:
    size = load_tokenizer(fixtures / "byte_level").vocab_size
    added = {str(size): {"content": "<|new|>", "special": True}}
    directory = model_dir(fixtures / "byte_level", tokenizer_config={"added_tokens_decoder": added})
    assert load_tokenizer(directory).encode("<|new|>", add_special_tokens=False) == [size]
    added = {str(size + 5): {"content": "<|new|>", "special": True}}
    with pytest.raises(ModelLoadError, match="does not fit"):
        load_tokenizer(model_dir(fixtures / "byte_level", tokenizer_config={"added_tokens_decoder": added}))


# -- families of tiktoken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "checks"),
    [
        ({"config": {"model_type": "gpt_oss"}}, {"<|return|>": 4, "<|call|>": 14, "<|end|>": 9, "<|channel|>": 7}),
        ({"tokenizer_config": {"tokenizer_class": "QWenTokenizer"}}, {"<|endoftext|>": 0, "<|im_end|>": 2}),
        ({"tokenizer_config": {"tokenizer_class": "TikTokenTokenizer"}}, {"[BOS]": 0, "[EOS]": 1}),
        (
            {"config": {"model_type": "llama"}},
            {"<|begin_of_text|>": 0, "<|eot_id|>": 9, "<|reserved_special_token_247|>": 255},
        ),
    ],
)
def test_special_tokens_of_the_families(
    model_dir: Write, fixtures: Path, files: dict[str, object], checks: dict[str, int]
) -> None:
    own = load_tokenizer(model_dir(fixtures / "tiktoken", **files))
    assert {text: own.id_of(text) for text in checks} == {text: 470 + index for text, index in checks.items()}


@pytest.mark.parametrize("name", ["tiktoken.model", "llama.tiktoken"])
def test_other_names_of_tiktoken_files(model_dir: Write, fixtures: Path, name: str) -> None:
    directory = model_dir(fixtures / "tiktoken")
    (directory / "tokenizer.model").rename(directory / name)
    assert load_tokenizer(directory).encode("The<|eot_id|>", add_special_tokens=False)[-1] == 479


def test_kimi_cuts_chinese_runs_apart(model_dir: Write, fixtures: Path) -> None:
    """Its pattern takes Han characters as words of their own; o200k's takes them with their neighbours."""
    family = next(f for f in FAMILIES if f.name == "kimi")
    ranks = {bytes([i]): i for i in range(256)} | {"文b".encode(): 300, "b文".encode(): 301}
    ranks |= {"文".encode()[:2]: 256, "文".encode(): 257}
    encoding = tiktoken.Encoding("kimi", pat_str=family.pattern, mergeable_ranks=ranks, special_tokens={})
    assert encoding.encode_ordinary("文b文") == [257, ord("b"), 257]
    harmony = next(f for f in FAMILIES if f.name == "harmony")
    joined = tiktoken.Encoding("o200k", pat_str=harmony.pattern, mergeable_ranks=ranks, special_tokens={})
    assert joined.encode_ordinary("文b文") != [257, ord("b"), 257]


def test_qwen_normalises_where_its_tokenizer_class_is_named(model_dir: Write, fixtures: Path) -> None:
    own = load_tokenizer(model_dir(fixtures / "tiktoken", tokenizer_config={"tokenizer_class": "QWenTokenizer"}))
    decomposed = own.encode("e\u0301", add_special_tokens=False)
    assert decomposed == own.encode("é", add_special_tokens=False)


# -- broken files -----------------------------------------------------------------------------------------------------


def broken(write: Write, name: str, content: bytes) -> Path:
    directory = write()
    (directory / name).write_bytes(content)
    return directory


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", b"{}", "no tokenizer"),
        ("tokenizer.json", b"{", "not a usable tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "Nothing"}}', "not a usable tokenizer"),
        ("tokenizer.model", b"\x00\x01garbage", "neither a SentencePiece model"),
        ("tokenizer.model", b"", "neither a SentencePiece model"),
        ("words.tiktoken", b"hello world\n", "not a tiktoken vocabulary"),
        ("words.tiktoken", b"IQ== 0\nnonsense\n", "line 2"),
        ("words.tiktoken", b"IQ== 0\nIg== 0\n", "one rank to two tokens"),
        ("words.tiktoken", b"IQ== 0\n", "no token for the byte 0x00"),
    ],
)
def test_broken_tokenizers_say_so_in_one_sentence(model_dir: Write, name: str, content: bytes, says: str) -> None:
    with pytest.raises(ModelLoadError, match=says):
        load_tokenizer(broken(model_dir, name, content))


def test_unknown_tiktoken_vocabulary(model_dir: Write, fixtures: Path) -> None:
    directory = model_dir(fixtures / "tiktoken", config={"model_type": "novel"})
    with pytest.raises(ModelLoadError, match=r"470 tokens.*tokenizer\.json is needed"):
        load_tokenizer(directory)


@pytest.mark.parametrize("name", ["tokenizer_config", "config", "generation_config", "special_tokens_map"])
def test_broken_json_beside_the_tokenizer(model_dir: Write, fixtures: Path, name: str) -> None:
    directory = model_dir(fixtures / "sentencepiece")
    (directory / f"{name}.json").write_text("{nope")
    with pytest.raises(ModelLoadError, match=name):
        load_tokenizer(directory)
    (directory / f"{name}.json").write_text("[1]")
    with pytest.raises(ModelLoadError, match="not a JSON object"):
        load_tokenizer(directory)


@pytest.mark.parametrize("added", [{"x": {"content": "a"}}, {"3": {"special": True}}])
def test_impossible_added_tokens(model_dir: Write, fixtures: Path, added: object) -> None:
    with pytest.raises(ModelLoadError, match="added_tokens_decoder"):
        load_tokenizer(model_dir(fixtures / "sentencepiece", tokenizer_config={"added_tokens_decoder": added}))
