"""Random Llama models in hub layout: the same weights for every contender."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401  numpy learns bfloat16
import numpy as np
from safetensors.numpy import save_file


@dataclass(frozen=True)
class Shape:
    """A Llama with tied embeddings."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ff: int
    vocab: int
    context: int = 1024

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight; matrices are [out, in]."""
        d, kv = self.hidden, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, d), "model.norm.weight": (d,)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            shapes |= {
                prefix + "input_layernorm.weight": (d,),
                prefix + "self_attn.q_proj.weight": (d, d),
                prefix + "self_attn.k_proj.weight": (kv, d),
                prefix + "self_attn.v_proj.weight": (kv, d),
                prefix + "self_attn.o_proj.weight": (d, d),
                prefix + "post_attention_layernorm.weight": (d,),
                prefix + "mlp.gate_proj.weight": (self.ff, d),
                prefix + "mlp.up_proj.weight": (self.ff, d),
                prefix + "mlp.down_proj.weight": (d, self.ff),
            }
        return shapes

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.tensors().values())

    def decode_bytes(self, sequences: int, context: int, itemsize: int = 4) -> int:
        """Bytes one decode step must read at least: every weight once, and each sequence's keys and values."""
        cache = 2 * self.layers * self.kv_heads * self.head_dim * context * sequences
        return (self.parameters + cache) * itemsize


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("15M", hidden=288, layers=6, heads=6, kv_heads=6, ff=768, vocab=32000),
        Shape("135M", hidden=576, layers=30, heads=9, kv_heads=3, ff=1536, vocab=49152),
    )
}


def write(shape: Shape, directory: Path, seed: int = 0, dtype: str = "float32") -> None:
    """Writes config.json, model.safetensors and a byte-level tokenizer.json."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = {}
    for name, dims in shape.tensors().items():
        if len(dims) == 1:
            weights[name] = np.ones(dims, dtype)
        else:
            weights[name] = (rng.standard_normal(dims, np.float32) * np.float32(dims[1] ** -0.5)).astype(dtype)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(_config(shape), indent=1))
    (directory / "tokenizer.json").write_text(json.dumps(_tokenizer(shape.vocab)))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ff,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "torch_dtype": "float32",
    }


def _tokenizer(vocab: int) -> dict[str, object]:
    """A valid byte-level BPE: 256 bytes, then pairs of bytes until the vocabulary is full."""
    letters = _byte_letters()
    pairs = [(a, b) for a in letters for b in letters][: vocab - len(letters)]
    tokens = letters + [a + b for a, b in pairs]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [f"{a} {b}" for a, b in pairs],
        },
    }


def _byte_letters() -> list[str]:
    """One visible character for each byte, as byte-level BPE files write them: itself where it prints, else 256 up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]
