"""Blocks of GGUF files that are held as they are stored: the package `gguf`'s numbers, logits, bits of a row."""

from __future__ import annotations

import gguf
import gguf_writing
import jax.numpy as jnp
import numpy as np
import pytest
from model_session import Session

from jaxserve import models
from jaxserve.models import tiles_on_device
from jaxserve.models.gguf.codes import BLOCKS, Coded
from jaxserve.models.gguf.file import open_gguf
from jaxserve.models.gguf.pieces import block_size
from jaxserve.resolve import resolve_model

WHOLE = (slice(None), slice(None))
HALVES = {**dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)), "Q6_K": (208,), "MXFP4": ()}
"""Type -> first bytes of its float16 numbers; (0,) of the others."""


def random_blocks(rng, kind, rows, inputs):
    """Bytes of any codes and scales, but of finite numbers."""
    block, size = block_size(kind)
    raw = rng.integers(0, 256, (rows, inputs // block, size), dtype=np.uint8)
    for first in HALVES.get(kind, (0,)):
        raw[..., first + 1] &= 0xBF
    if kind == "MXFP4":
        raw[..., 0] = rng.integers(90, 140, raw.shape[:2])
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", BLOCKS)
def test_codes_and_scales_give_the_numbers_of_the_package(kind, tmp_path):
    """Bit for bit, also of some rows in another order; rows are looked up by their numbers."""
    rng, kind_of = np.random.default_rng(1), gguf.GGMLQuantizationType[kind]
    raw = random_blocks(rng, kind, 64, 512)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("t", raw, raw_dtype=kind_of)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    tensor, expected = open_gguf([tmp_path / "a.gguf"]).tensors["t"], gguf.dequantize(raw, kind_of)
    for rows in (None, rng.permutation(64)[:48]):
        parts = []
        for part in ("codes", "scales"):
            coded = Coded(tensor, rows, part, block_size(kind)[1])
            parts.append(np.empty(coded.shape, coded.dtype))
            coded.read(WHOLE, parts[-1])
        held = tuple(map(jnp.asarray, parts))
        own = expected if rows is None else expected[rows]
        np.testing.assert_array_equal(tiles_on_device.dequantised(*held, BLOCKS[kind].format), own)
        picked = tiles_on_device.take_rows(*held, BLOCKS[kind].format, jnp.asarray([3, 0, 99, 17]))
        np.testing.assert_array_equal(picked, own[[3, 0, len(own) - 1, 17]])


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A Llama of two layers whose matrices are of seven types."""
    config = {
        "model_type": "llama",
        "vocab_size": 96,
        "num_hidden_layers": 2,
        "max_position_embeddings": 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
    }
    rng = np.random.default_rng(6)
    shapes = {f"self_attn.{name}_proj": (32 if name in "kv" else 64, 64) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (128, 64), "mlp.up_proj": (128, 64), "mlp.down_proj": (64, 128)}
    tensors = {"model.embed_tokens.weight": (96, 64), "lm_head.weight": (96, 64)}
    tensors |= {f"model.layers.{layer}.{name}.weight": shape for layer in (0, 1) for name, shape in shapes.items()}
    tensors = {name: rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32) for name, shape in tensors.items()}
    norms = [f"model.layers.{n}.{part}_layernorm.weight" for n in (0, 1) for part in ("input", "post_attention")]
    tensors |= {name: np.ones(64, np.float32) for name in (*norms, "model.norm.weight")}
    kinds = {"token_embd": "Q8_0", "output": "Q8_0"}
    kinds |= dict.fromkeys([f"blk.{n}.attn_{part}" for n in (0, 1) for part in ("q", "k", "output")], "Q4_1")
    kinds |= {"blk.0.attn_v": "Q5_0", "blk.1.attn_v": "Q8_0", "blk.0.ffn_up": "Q4_0", "blk.1.ffn_up": "Q4_0"}
    kinds |= {f"blk.{n}.ffn_gate": "Q4_0" for n in (0, 1)} | {"blk.0.ffn_down": "Q5_1"}
    types = {f"{name}.weight": gguf.GGMLQuantizationType[kind] for name, kind in kinds.items()}
    path = tmp_path_factory.mktemp("gguf") / "seven.gguf"
    return resolve_model(gguf_writing.write_gguf(path, config, tensors, kinds=types))


def test_logits_and_bits_of_a_row(quantised):
    """Near the dequantised model's; a sequence fed token by token, alone and among others has the same bits."""
    model = models.load_model(quantised)
    if not model.backends.matmul.tiles:
        pytest.skip("there are no native kernels here")
    assert models.describe_weights(model.config) == "int4, blocks of 32 and int8, blocks of 32"
    plain = models.load_model(quantised, weights="dequantize")
    assert models.describe_weights(plain.config) is None
    assert model.num_parameters == plain.num_parameters == sum(leaf.size for leaf in plain.leaves)
    ids = np.random.default_rng(2).integers(0, 96, 40).tolist()
    logits = Session(model).chunks(ids, [40], 64)
    exact = Session(plain).chunks(ids, [40], 64)
    assert np.sqrt(np.mean((logits - exact) ** 2)) < 1e-4 * np.std(exact)
    assert np.array_equal(logits.argmax(-1), exact.argmax(-1))
    assert not np.array_equal(logits, exact)
    assert np.array_equal(Session(model).chunks(ids, [1] * 40, 1), logits)
    both = Session(model)
    shared = [both.run([(1, at, [ids[-1 - at]]), (0, at, [ids[at]])], 16)[1] for at in range(40)]
    assert np.array_equal(np.concatenate(shared), logits)


def test_other_kernels_and_meshes_get_numbers(quantised):
    """Nothing is held as blocks where nothing multiplies them."""
    backends = models.choose_backends(None, "xla", "cpu")
    assert models.describe_weights(models.load_model(quantised, backends=backends).config) is None
    assert models.describe_weights(models.load_model(quantised, quantize="int8").config) == "int8, a scale per row"
