"""Vocabularies of GGUF files: written as tokenizer files they cut texts as the tokenizers they came from."""

from __future__ import annotations

import json

import pytest
import sentencepiece
import tokenizers

from jaxserve.errors import ModelLoadError
from jaxserve.text import load_chat_template, load_tokenizer
from jaxserve.text.tokenizers.gguf import write_tokenizer
from jaxserve.text.tokenizers.gguf_words import PRE_TOKENIZERS

TEXTS = (
    "Hello world, it's 12345 o'clock.",
    "  two  spaces\n\n\tand tabs ",
    "naïve café — 日本語 🙂 \u0301",
    "<s>not a control token</s><|im_end|>",
    "HTTPServer camelCase 1/2 +-*",
    "",
)


def bpe_fields(pre="smollm", **more):
    """A vocabulary trained here: bytes, a few merges, two control tokens."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator([*TEXTS, "the cat and the hat"] * 3, trainer)
    model = json.loads(library.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    fields = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3] * 3 + [1] * (len(tokens) - 3),
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}, library


def written(fields, folder):
    write_tokenizer(fields, folder)
    (folder / "config.json").write_text("{}")
    return load_tokenizer(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_bpe(text, tmp_path):
    fields, library = bpe_fields("gpt-2")
    ours = written(fields, tmp_path)
    ids = ours.encode(text, add_special_tokens=False)
    assert ids == library.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids, skip_special_tokens=False) == text
    assert ours.encode("<|im_end|>", add_special_tokens=False) == [2]
    assert ours.eos_ids == (0, 2)


@pytest.mark.parametrize(
    ("flag", "pre", "begins"),
    [(True, "smollm", True), (False, "llama-bpe", False), (None, "llama-bpe", True), (None, "qwen2", False)],
)
def test_a_text_begins_with_bos_where_the_file_or_else_the_family_says_so(flag, pre, begins, tmp_path):
    more = {} if flag is None else {"add_bos_token": flag}
    ids = written(bpe_fields(pre, **more)[0], tmp_path).encode("a", add_special_tokens=True)
    assert (ids[0] == 1) == begins


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_way_to_cut_words_keeps_the_text(pre, tmp_path):
    ours = written(bpe_fields(pre)[0], tmp_path)
    for text in TEXTS[:2]:
        assert ours.decode(ours.encode(text, add_special_tokens=False), skip_special_tokens=False) == text


def test_digits_are_cut_as_the_family_does(tmp_path):
    fields, _ = bpe_fields()
    fields["tokenizer.ggml.tokens"] += ["67", "678"]
    fields["tokenizer.ggml.token_type"] += [1, 1]
    fields["tokenizer.ggml.merges"] += ["6 7", "67 8"]
    counts = {}
    for pre in ("smollm", "llama-bpe", "qwen2", "gpt-2"):
        fields["tokenizer.ggml.pre"] = pre
        (tmp_path / pre).mkdir()
        counts[pre] = len(written(fields, tmp_path / pre).encode("678", add_special_tokens=False))
    assert counts == {"smollm": 3, "llama-bpe": 1, "qwen2": 3, "gpt-2": 1}


def test_the_published_tokenizer_of_deepseek_v3_cuts_alike(shared_dir, tmp_path):
    source = json.loads((shared_dir / "real/tokenizers/deepseek_v3/tokenizer.json").read_text())
    theirs = [step["pattern"]["Regex"] for step in source["pre_tokenizer"]["pretokenizers"][:-1]]
    library = tokenizers.Tokenizer.from_file(str(shared_dir / "real/tokenizers/deepseek_v3/tokenizer.json"))
    ours = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")
            for regex in PRE_TOKENIZERS["deepseek-v3"].expressions
        ]
    )
    expected = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Split(tokenizers.Regex(regex), "isolated") for regex in theirs]
    )
    assert library is not None
    for text in TEXTS:
        assert ours.pre_tokenize_str(text) == expected.pre_tokenize_str(text)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A trained SentencePiece model with byte pieces, a control and a user-defined one."""
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text").write_text("\n".join([*TEXTS, "the cat and the hat sat", "ab abc abcd"] * 5))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "m"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n\n"],
        control_symbols=["<turn>"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))


def test_sentencepiece(pieces, tmp_path):
    count = pieces.get_piece_size()
    kinds = [
        2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1
        for i in range(count)
    ]
    kinds[pieces.piece_to_id("\n\n")] = 4
    fields = {
        "model": "llama",
        "tokens": [pieces.id_to_piece(i) for i in range(count)],
        "scores": [pieces.get_score(i) for i in range(count)],
        "token_type": kinds,
        "bos_token_id": pieces.bos_id(),
        "eos_token_id": pieces.eos_id(),
        "unknown_token_id": pieces.unk_id(),
    }
    fields = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    ours = written(fields, tmp_path)
    for text in (each for each in TEXTS if "<" not in each):
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == pieces.encode(text), text
        assert ours.decode(ids, skip_special_tokens=False) == pieces.decode(ids)
    assert ours.encode("a", add_special_tokens=True)[0] == pieces.bos_id()
    assert ours.encode("<turn>", add_special_tokens=False) == [pieces.piece_to_id("<turn>")]
    assert ours.eos_ids == (pieces.eos_id(),)
    assert load_chat_template(tmp_path, ours) is None


def test_the_template_and_the_end_of_turns_of_gpt_oss(tmp_path):
    """<|end|> ends a message there, not the answer."""
    fields, _ = bpe_fields("gpt-4o")
    names = ["<|end|>", "<|return|>", "<|call|>"]
    fields["tokenizer.ggml.tokens"] += names
    fields["tokenizer.ggml.token_type"] += [3] * 3
    ours = written(fields | {"tokenizer.chat_template": "{{ messages[0].content }}"}, tmp_path)
    assert {ours.id_of(name) in ours.eos_ids for name in names[1:]} == {True}
    assert ours.id_of("<|end|>") not in ours.eos_ids
    template = load_chat_template(tmp_path, ours)
    assert template is not None
    assert template.render([{"role": "user", "content": "hi"}]) == "hi"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "t5"}, "kind 't5'"),
        ({"tokens": None}, "kind 'gpt2'"),
        ({"pre": "viking"}, "'viking'"),
        ({"token_type": [1]}, "token_type"),
        ({"model": "llama"}, "scores"),
    ],
)
def test_what_cannot_be_read_is_named(change, says, tmp_path):
    fields = bpe_fields()[0] | {f"tokenizer.ggml.{name}": value for name, value in change.items()}
    with pytest.raises(ModelLoadError, match=says):
        write_tokenizer(fields, tmp_path)
