"""Writes the trained model as a directory in hub layout."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from train_bundled.corpus.chat import TURN_END, TURN_START
from train_bundled.model import Params, Shape
from train_bundled.tokenizer import BOS_ID, EOS_ID, load

CHAT_TEMPLATE = r"""{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- elif message.content %}
        {%- for part in message.content if part.type == 'text' %}
            {{- part.text }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""


def round_to_bfloat16(params: Params) -> dict[str, np.ndarray]:
    """The weights as stored: bfloat16, so that a float32 and a bfloat16 engine start from the same numbers."""
    return {name: np.asarray(value).astype(ml_dtypes.bfloat16) for name, value in params.items()}


def export(out: Path, shape: Shape, params: Params, tokenizer_model: bytes) -> None:
    """Writes weights, configuration, tokenizer and chat template to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(round_to_bfloat16(params), out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    (out / "tokenizer.model").write_bytes(tokenizer_model)
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    tokenizer = load(tokenizer_model)
    start, end = tokenizer.piece_to_id(TURN_START), tokenizer.piece_to_id(TURN_END)
    _write(out / "config.json", _config(shape, end))
    _write(out / "generation_config.json", _generation_config(end))
    _write(out / "tokenizer_config.json", _tokenizer_config(shape, start, end))


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def _config(shape: Shape, turn_end: int) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "max_window_layers": shape.layers,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": BOS_ID,
        "eos_token_id": [turn_end, EOS_ID],
        "torch_dtype": "bfloat16",
    }


def _generation_config(turn_end: int) -> dict[str, object]:
    return {
        "bos_token_id": BOS_ID,
        "eos_token_id": [turn_end, EOS_ID],
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
    }


def _tokenizer_config(shape: Shape, turn_start: int, turn_end: int) -> dict[str, object]:
    special = {0: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>", turn_start: TURN_START, turn_end: TURN_END}
    return {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "spaces_between_special_tokens": False,
        "model_max_length": shape.context,
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": TURN_END,
        "additional_special_tokens": [TURN_START, TURN_END],
        "added_tokens_decoder": {
            str(token_id): {
                "content": content,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "single_word": False,
                "special": True,
            }
            for token_id, content in sorted(special.items())
        },
    }
