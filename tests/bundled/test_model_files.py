"""The stored model: complete, consistent, small, and as good as documented."""

from __future__ import annotations

import json
import re
from importlib import util
from pathlib import Path

import jinja2
import numpy as np
import pytest
import sentencepiece as spm
from safetensors import safe_open

_SPEC = util.spec_from_file_location("bundled_reference", Path(__file__).parent / "reference.py")
assert _SPEC is not None
assert _SPEC.loader is not None
reference = util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
}
HELD_OUT_LOSS = 0.6
"""Nats per token on unseen text of the generator; docs/bundled-model.md says what was reached."""


def shape_of(config: dict):
    """The trainer's sizes as config.json states them."""
    from train_bundled.model import Shape

    return Shape(
        vocab_size=config["vocab_size"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        feed_forward=config["intermediate_size"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
    )


@pytest.fixture(scope="module")
def tokenizer(story_dir: Path) -> spm.SentencePieceProcessor:
    return spm.SentencePieceProcessor(model_file=str(story_dir / "tokenizer.model"))


@pytest.fixture(scope="module")
def config(story_dir: Path) -> dict:
    return json.loads((story_dir / "config.json").read_text())


def test_directory_is_complete_and_small(story_dir: Path) -> None:
    assert {path.name for path in story_dir.iterdir()} == FILES
    assert sum(path.stat().st_size for path in story_dir.iterdir()) < 5_000_000


def test_weights_have_the_shapes_of_the_config(story_dir: Path, config: dict) -> None:
    shape = shape_of(config)
    with safe_open(story_dir / "model.safetensors", "numpy") as weights:
        stored = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        dtypes = {weights.get_slice(name).get_dtype() for name in stored}
    assert stored == shape.parameter_shapes()
    assert dtypes == {"BF16"}
    assert sum(int(np.prod(dims)) for dims in stored.values()) <= 2_000_000


def test_config_is_qwen3_with_enough_context(config: dict) -> None:
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["model_type"] == "qwen3"
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] >= 1024
    assert config["num_attention_heads"] % config["num_key_value_heads"] == 0


def test_token_ids_agree_in_all_files(story_dir: Path, config: dict, tokenizer: spm.SentencePieceProcessor) -> None:
    generation = json.loads((story_dir / "generation_config.json").read_text())
    described = json.loads((story_dir / "tokenizer_config.json").read_text())
    assert tokenizer.vocab_size() == config["vocab_size"]
    ids = {token["content"]: int(key) for key, token in described["added_tokens_decoder"].items()}
    assert ids == {
        piece: tokenizer.piece_to_id(piece) for piece in ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
    }
    assert config["eos_token_id"] == generation["eos_token_id"] == [ids["<|im_end|>"], ids["</s>"]]
    assert config["bos_token_id"] == ids[described["bos_token"]] == 1


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time, there was a little fox.",
        "  two spaces,\ttab,\n\nblank line ",
        "Ünïcödé, 日本語, 🦊 and 1234567890!",
        "<|im_start|>user\nTell me a story.<|im_end|>\n",
        "",
    ],
)
def test_tokenizer_round_trip(tokenizer: spm.SentencePieceProcessor, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_id() not in ids


def test_chat_marks_are_single_tokens(tokenizer: spm.SentencePieceProcessor) -> None:
    pieces = tokenizer.encode("<|im_start|>assistant\nHi<|im_end|>", out_type=str)
    assert pieces[0] == "<|im_start|>"
    assert pieces[-1] == "<|im_end|>"
    assert "<0x0A>" in pieces


def test_template_writes_what_the_model_was_trained_on(story_dir: Path) -> None:
    from train_bundled.corpus.chat import Turn, render

    template = jinja2.Environment().from_string((story_dir / "chat_template.jinja").read_text())
    turns = [
        Turn("system", "Be kind."),
        Turn("user", "Hi"),
        Turn("assistant", "Hello!"),
        Turn("user", "A story, please."),
    ]
    messages = [turn._asdict() for turn in turns]
    assert template.render(messages=messages, bos_token="<s>") == "<s>" + render(turns)
    parts = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
    assert template.render(messages=parts, bos_token="<s>") == "<s>" + render(turns)
    prompt = template.render(messages=messages, bos_token="<s>", add_generation_prompt=True)
    assert prompt == "<s>" + render(turns) + "<|im_start|>assistant\n"


def test_held_out_loss(story_dir: Path, tokenizer: spm.SentencePieceProcessor) -> None:
    from train_bundled.corpus import documents

    config, weights = reference.load_weights(story_dir)
    sequences = [[1, *tokenizer.encode(text), 2] for text in documents(seed=12345, count=12)]
    assert reference.mean_loss(config, weights, sequences) < HELD_OUT_LOSS


def test_reference_agrees_with_the_trainer(story_dir: Path, tokenizer: spm.SentencePieceProcessor) -> None:
    import jax.numpy as jnp
    from train_bundled.model import forward

    config, weights = reference.load_weights(story_dir)
    tokens = [1, *tokenizer.encode("One sunny day, Mia went to the park." * 12)]
    shape = shape_of(config)
    mine = reference.logits(config, weights, tokens)
    params = {name: jnp.asarray(value, jnp.float32) for name, value in weights.items()}
    np.testing.assert_allclose(np.asarray(forward(shape, params, jnp.asarray([tokens]))[0]), mine, atol=2e-3)


@pytest.mark.parametrize(
    ("request_text", "said"),
    [
        pytest.param("Tell me a story about a cat and a red ball.", r"\bcat\b", marks=pytest.mark.slow),
        pytest.param("Write a short story about a rabbit.", r"\brabbit\b", marks=pytest.mark.slow),
        ("Can you tell me a story about a dragon?", r"\bdragon\b"),
        ("Who are you?", r"\bstory model\b"),
    ],
)
def test_greedy_answers_are_about_the_request(
    story_dir: Path, tokenizer: spm.SentencePieceProcessor, request_text: str, said: str
) -> None:
    config, weights = reference.load_weights(story_dir)
    prompt = tokens = [1, *tokenizer.encode(f"<|im_start|>user\n{request_text}<|im_end|>\n<|im_start|>assistant\n")]
    while len(tokens) < len(prompt) + 40 and tokens[-1] not in config["eos_token_id"]:
        tokens = [*tokens, int(reference.logits(config, weights, tokens)[-1].argmax())]
    assert re.search(said, tokenizer.decode(tokens[len(prompt) :]))
