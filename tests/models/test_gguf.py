"""GGUF files: written by the package `gguf` from our checkpoints, they give the checkpoints' own parameters."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace

import gguf
import gguf_writing
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models.gguf import pieces
from jaxserve.models.gguf.file import open_gguf
from jaxserve.models.quantization import Weight
from jaxserve.resolve import resolve_model

ONE_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
CASES = {
    "llama_linear_rope": {},
    "mixtral": {"sliding_window": None},
    "qwen2_bias": {},
    "qwen3_moe": {
        "num_hidden_layers": 1,
        "norm_topk_prob": True,
        "mlp_only_layers": None,
        "decoder_sparse_step": None,
        "rope_scaling": ONE_YARN,
    },
    "gemma2": {"query_pre_attn_scalar": 20},
    "gemma3": {"query_pre_attn_scalar": 12, "layer_types": None},
    "phi3": {},
    "glm4": {},
    "gpt_oss": {"rope_scaling": {**ONE_YARN, "truncate": False}},
    "deepseek_v2": {
        "rope_scaling": {**ONE_YARN, "original_max_position_embeddings": 32, "mscale": 0.8, "mscale_all_dim": 0.8}
    },
    "deepseek_v3": {
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "mscale": 0.8,
            "mscale_all_dim": 0.8,
        }
    },
}
"""Fixture -> fields changed to what a GGUF file can say."""


@pytest.fixture
def converted(model_fixtures, tmp_path):
    """A fixture's directory with changed fields, and the directory that stands for its GGUF file."""

    def convert(name, changes=(), **options):
        hub = shutil.copytree(model_fixtures / name, tmp_path / "hub")
        config, tensors = gguf_writing.read_checkpoint(hub)
        config = {key: value for key, value in {**config, **dict(changes)}.items() if value is not None}
        layers = config["num_hidden_layers"]
        tensors = {key: value for key, value in tensors.items() if _layer(key) < layers}
        (hub / "config.json").write_text(json.dumps(config))
        save_file(tensors, hub / "model.safetensors")
        return hub, resolve_model(gguf_writing.write_gguf(tmp_path / "tiny-Q8_0.gguf", config, tensors, **options))

    return convert


def _layer(name):
    parts = name.split(".")
    return int(parts[2]) if parts[1] == "layers" else -1


@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_the_parameters_of_the_checkpoint_it_was_made_of(name, converted):
    """The same layers, and every parameter bit for bit."""
    hub, stand = converted(name, CASES[name])
    expected, loaded = models.load_model(hub), models.load_model(stand)
    assert _rounded(loaded.config) == _rounded(expected.config)
    for ours, theirs in zip(loaded.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def _rounded(config):
    """Fields of GGUF are float32."""
    layers = tuple(
        replace(layer, attention=replace(layer.attention, rope=_rounded_rope(layer.attention.rope)))
        for layer in config.layers
    )
    return replace(config, layers=layers, norm_eps=float(np.float32(config.norm_eps)), eos_token_ids=())


def _rounded_rope(rope):
    return replace(
        rope,
        factor=1.0 if rope.kind == "longrope" else rope.factor,
        attention_factor=round(rope.attention_factor, 6),
        short_factors=tuple(np.float32(rope.short_factors)),
        long_factors=tuple(np.float32(rope.long_factors)),
    )


def test_llama3s_stretched_rotation_is_the_factors_of_the_file(converted, make_session):
    """The checkpoint states a rule, the file its results: logits are those of the float64 reference."""
    hub, stand = converted("llama_one_kv_head")
    expected = np.load(hub / "expected.npz")
    logits = make_session(models.load_model(stand)).run([(0, 0, expected["ids"])], 64)[0]
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-3, rtol=0)


def test_latent_keys_and_values_may_be_apart(model_fixtures, tmp_path, converted):
    """Newer files of deepseek2 have two tensors for kv_b, the keys' turned over."""
    hub, _ = converted("deepseek_v3", CASES["deepseek_v3"])
    config, tensors = gguf_writing.read_checkpoint(hub)
    heads, nope, value = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    apart = {}
    for name, array in tensors.items():
        if "kv_b_proj" in name:
            both = array.reshape(heads, nope + value, -1)
            apart[name.replace("kv_b", "k_b")] = both[:, :nope].swapaxes(1, 2)
            apart[name.replace("kv_b", "v_b")] = both[:, nope:]
        else:
            apart[name] = array
    mla = {
        "deepseek2.attention.key_length_mla": nope + config["qk_rope_head_dim"],
        "deepseek2.attention.value_length_mla": value,
    }
    path = gguf_writing.write_gguf(tmp_path / "apart.gguf", config, apart, more=mla)
    loaded, expected = models.load_model(resolve_model(path)), models.load_model(hub)
    for ours, theirs in zip(loaded.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("lengths", [(2, 9), (2, 1 << 62), (9,)])
def test_a_vocabulary_that_ends_beyond_the_file_is_refused(lengths, tmp_path):
    """Nothing is behind it that would be missed."""
    string, array = 8, 9
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 4) + b"list"
    texts = b"".join(struct.pack("<Q", length) + b"ab" for length in lengths)
    path = tmp_path / "a.gguf"
    path.write_bytes(head + struct.pack("<IIQ", array, string, len(lengths)) + texts)
    with pytest.raises(ModelLoadError, match="truncated"):
        open_gguf([path])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # scales of random bits overflow
@pytest.mark.parametrize("kind", pieces.BLOCKS)
def test_blocks_are_read_by_parts(kind, tmp_path, monkeypatch):
    """Any part of a tensor of every type is that part of the package's own dequantisation of all of it."""
    known = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[known]
    raw = np.random.default_rng(3).integers(0, 256, (3, 10, 2 * size), np.uint8)
    whole = gguf.dequantize(raw, known)
    assert whole.shape == (3, 10, 2 * block)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("x", raw, raw_dtype=known)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = open_gguf([tmp_path / "x.gguf"]).tensors["x"]
    assert (tensor.kind, tensor.shape) == (kind, whole.shape)
    monkeypatch.setattr(pieces, "_TILE_BYTES", 4 * whole[0].size)  # one expert at a time
    for index in ((slice(None),) * 3, (slice(1, 3), slice(2, 9), slice(5, block + 7)), (slice(0, 1),) * 3):
        out = np.empty(whole[index].shape, np.float32)
        pieces.Blocks(tensor).read(index, out)
        np.testing.assert_array_equal(out, whole[index])


@pytest.mark.parametrize("weights", ["keep", "dequantize"])
def test_quantised_rows_of_llama_are_put_in_order(weights, converted, tmp_path):
    """q and k are stored in pairs, their blocks along the row: the rows are moved, the blocks stay whole."""
    config = {
        "model_type": "llama",
        "num_hidden_layers": 1,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 40,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
    }
    rng = np.random.default_rng(4)
    shapes = {"q": (64, 64), "k": (32, 64), "v": (32, 64), "o": (64, 64)}
    tensors = {f"model.layers.0.self_attn.{name}_proj.weight": shape for name, shape in shapes.items()}
    tensors |= {f"model.layers.0.mlp.{name}_proj.weight": (64, 64) for name in ("gate", "up", "down")}
    tensors |= {f"model.layers.0.{name}_layernorm.weight": (64,) for name in ("input", "post_attention")}
    tensors |= {"model.embed_tokens.weight": (40, 64), "model.norm.weight": (64,)}
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in tensors.items()}
    kinds = {"blk.0.attn_q.weight": "Q4_1", "blk.0.attn_k.weight": "Q5_0", "token_embd.weight": "Q8_0"}
    kinds = {name: gguf.GGMLQuantizationType[kind] for name, kind in kinds.items()}
    path = gguf_writing.write_gguf(tmp_path / "a.gguf", config, tensors, kinds=kinds)
    loaded = models.load_model(resolve_model(path), weights=weights)
    named = dict(zip((leaf.name for leaf in _leaves(loaded)), loaded.leaves, strict=True))
    formats = dict(loaded.config.layers[0].formats)
    for name, kind in (("q", "blk.0.attn_q.weight"), ("k", "blk.0.attn_k.weight")):
        plain, own = tensors[f"model.layers.0.self_attn.{name}_proj.weight"], f"attention.{name}_proj"
        held = Weight(named[f"{own}.weight"], named.get(f"{own}.weight_scale"), formats.get(own))
        expected = gguf.dequantize(gguf.quants.quantize(plain, kinds[kind]), kinds[kind])
        np.testing.assert_array_equal(held.dequantised("float32"), expected)


def _leaves(model):
    from jaxserve.models.model import plan_model

    return plan_model(model.config, mesh=model.mesh, dtype=model.dtype, layer_loop=model.layer_loop).leaves
