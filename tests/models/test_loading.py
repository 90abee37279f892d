"""Every way a model directory can be wrong ends in one clear sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxserve import models
from jaxserve.errors import ModelLoadError


@pytest.fixture
def model_dir(model_fixtures, tmp_path):
    """A private copy of a one-layer model."""
    target = tmp_path / "model"
    shutil.copytree(model_fixtures / "qwen3_one_layer", target)
    return target


def edit(model_dir, **fields):
    path = model_dir / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def rewrite(model_dir, change):
    path = model_dir / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refused(model_dir, *parts):
    with pytest.raises(ModelLoadError) as caught:
        models.load_model(model_dir)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert message.endswith(".")


def test_missing_tensors(model_dir):
    rewrite(model_dir, lambda t: t.pop("model.norm.weight"))
    refused(model_dir, "lacks tensor model.norm.weight")


def test_surplus_tensors(model_dir):
    rewrite(model_dir, lambda t: t.update({f"extra.{n}": np.zeros(2, np.float32) for n in range(6)}))
    refused(model_dir, "tensors extra.0, extra.1, extra.2, extra.3 and 2 more")


def test_rotary_buffers_are_ignored(model_dir):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(model_dir, lambda t: t.update({name: np.zeros(10, np.float32)}))
    assert models.load_model(model_dir).leaves


def test_wrong_shape(model_dir):
    rewrite(model_dir, lambda t: t.update({"model.norm.weight": np.ones(47, np.float32)}))
    refused(model_dir, "model.norm.weight", "[47]", "[48]")


@pytest.mark.parametrize("size", [4, 100, 20000])
def test_truncated_file(model_dir, size):
    path = model_dir / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(model_dir, "model.safetensors", "truncated")


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_malformed_config(model_dir, text):
    (model_dir / "config.json").write_bytes(text.encode("latin-1"))
    refused(model_dir, "config.json")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"model_type": "rwkv"}, "'rwkv' is not supported"),
        ({"model_type": None, "architectures": ["FooForCausalLM"]}, "'FooForCausalLM' is not supported"),
        ({"model_type": None}, "model_type is missing"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"hidden_size": "48"}, "hidden_size must be an integer"),
        ({"rms_norm_eps": -1}, "rms_norm_eps must be a positive number"),
        ({"num_key_value_heads": 3}, "must divide num_attention_heads"),
        ({"hidden_act": "mish"}, "'mish' is not supported"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "'spiral' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"layer_types": ["full_attention"] * 2}, "layer_types must list 1 layers"),
        ({"layer_types": ["linear_attention"]}, "'linear_attention', which is not supported"),
        ({"quantization_config": {"quant_method": "awq"}}, "'awq' is not supported"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
    ],
)
def test_bad_config_fields(model_dir, fields, part):
    edit(model_dir, **fields)
    refused(model_dir, part)


def test_missing_files(model_dir):
    refused(model_dir / "nowhere", "does not exist")
    (model_dir / "model.safetensors").unlink()
    refused(model_dir, "has no *.safetensors file")
    (model_dir / "config.json").unlink()
    refused(model_dir, "has no config.json")


def split(model_dir):
    """Turn the single file into two with an index."""
    tensors = load_file(model_dir / "model.safetensors")
    (model_dir / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, model_dir / file)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (model_dir / "model.safetensors.index.json").write_text(json.dumps(index))


def test_sharded_files_load_alike(model_dir):
    single = models.load_model(model_dir)
    split(model_dir)
    for one, two in zip(single.leaves, models.load_model(model_dir).leaves, strict=True):
        np.testing.assert_array_equal(one, two)


def test_index_names_a_missing_file(model_dir):
    split(model_dir)
    (model_dir / "b.safetensors").unlink()
    refused(model_dir, "'b.safetensors'")


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "\xff"])
def test_malformed_index(model_dir, text):
    split(model_dir)
    (model_dir / INDEX).write_bytes(text.encode("latin-1"))
    refused(model_dir, f"{INDEX} is not a readable safetensors index")


@pytest.mark.parametrize("file", ["../model/a.safetensors", "", ".", "c.safetensors", 3, None])
def test_index_names_no_file_of_the_directory(model_dir, file):
    split(model_dir)
    path = model_dir / INDEX
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = file
    path.write_text(json.dumps(index))
    refused(model_dir, f"{INDEX} names {str(file)!r}, which {model_dir} does not have")


def test_index_misplaces_a_tensor(model_dir):
    split(model_dir)
    path = model_dir / INDEX
    index = json.loads(path.read_text())
    place = index["weight_map"]["model.norm.weight"]
    other = {"a.safetensors": "b.safetensors", "b.safetensors": "a.safetensors"}[place]
    index["weight_map"]["model.norm.weight"] = other
    path.write_text(json.dumps(index))
    refused(model_dir, f"places tensor model.norm.weight in {other}, which does not hold it")


def test_index_leaves_a_tensor_out(model_dir):
    split(model_dir)
    path = model_dir / INDEX
    index = json.loads(path.read_text())
    del index["weight_map"]["model.norm.weight"]
    path.write_text(json.dumps(index))
    refused(model_dir, "lacks tensor model.norm.weight")


def test_two_files_hold_one_tensor(model_dir):
    split(model_dir)
    (model_dir / INDEX).unlink()
    shutil.copy(model_dir / "a.safetensors", model_dir / "c.safetensors")
    refused(model_dir, "c.safetensors repeats tensor ", " of a.safetensors")


def rewrite_header(model_dir, change):
    """Change what the file says of its tensors, the data staying in place."""
    path = model_dir / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    changed = json.dumps(change(header) or header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + raw[8 + length :])


@pytest.mark.parametrize("kind", ["F4", "F8_E8M0", "C64", "U64", "float32", "", None, 7])
def test_unsupported_type(model_dir, kind):
    rewrite_header(model_dir, lambda header: header["model.norm.weight"].update(dtype=kind))
    refused(model_dir, "model.safetensors", "norm.weight" if kind != "F8_E8M0" else "")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda header: header["model.norm.weight"].update(shape=[49]),
            "tensor model.norm.weight of shape [49] does not",
        ),
        (
            lambda header: header["model.norm.weight"].update(shape=[-48]),
            "tensor model.norm.weight of shape [-48] does",
        ),
        (
            lambda header: header["model.norm.weight"].update(data_offsets=[-192, 0]),
            "tensor model.norm.weight of shape",
        ),
        (lambda header: header["model.norm.weight"].update(data_offsets=[0]), "not a readable safetensors file"),
        (lambda header: header["model.norm.weight"].update(data_offsets=None), "not a readable safetensors file"),
        (lambda header: header["model.norm.weight"].update(shape=None), "not a readable safetensors file"),
        (lambda header: header["model.norm.weight"].pop("dtype"), "not a readable safetensors file"),
        (lambda header: header.update({"model.norm.weight": 1}), "not a readable safetensors file"),
        (lambda header: [1], "not a readable safetensors file"),
    ],
)
def test_malformed_header(model_dir, change, part):
    rewrite_header(model_dir, change)
    refused(model_dir, "model.safetensors", part)


def test_header_promises_more_than_the_file_holds(model_dir):
    rewrite_header(model_dir, lambda header: header["model.norm.weight"].update(data_offsets=[1 << 40, (1 << 40) + 96]))
    refused(model_dir, "is truncated: its header promises")


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 8, b"\xff" * 100, (9).to_bytes(8, "little") + b"{'a': 1}x"])
def test_not_a_safetensors_file(model_dir, content):
    (model_dir / "model.safetensors").write_bytes(content)
    refused(model_dir, "model.safetensors", "safetensors file")


def test_a_directory_in_place_of_a_file(model_dir):
    (model_dir / "model.safetensors").unlink()
    (model_dir / "model.safetensors").mkdir()
    refused(model_dir, "model.safetensors is not a readable safetensors file")
    (model_dir / "config.json").unlink()
    (model_dir / "config.json").mkdir()
    refused(model_dir, "config.json is not readable JSON")


def test_whole_numbers_are_no_weights(model_dir):
    rewrite(model_dir, lambda t: t.update({"model.norm.weight": np.ones(48, np.int32)}))
    refused(model_dir, "model.norm.weight is int32")


def test_tied_table_under_either_name(model_fixtures, tmp_path):
    source = model_fixtures / "qwen2_bias"
    plain = models.load_model(source)
    shutil.copytree(source, tmp_path / "m")
    rewrite(tmp_path / "m", lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    for one, two in zip(plain.leaves, models.load_model(tmp_path / "m").leaves, strict=True):
        np.testing.assert_array_equal(one, two)


def test_progress_reaches_the_total(model_dir):
    seen = []
    model = models.load_model(model_dir, progress=lambda done, total: seen.append((done, total)))
    total = sum(leaf.nbytes for leaf in model.leaves)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_random_model_is_the_same_in_both_loops(model_fixtures):
    config = models.load_config(model_fixtures / "mistral_window")
    scan, unroll = (models.random_model(config, layer_loop=loop, seed=3) for loop in ("scan", "unroll"))
    stacked = {leaf.shape[1:]: leaf for leaf in scan.leaves if leaf.ndim == 3}
    for shape, leaf in stacked.items():
        twins = [np.asarray(one) for one in unroll.leaves if one.shape == shape]
        assert any((np.asarray(leaf[2]) == twin).all() for twin in twins)


def test_tiny_stories_stores_only_the_head(shared_dir):
    model = models.load_model(shared_dir / "real" / "models" / "TinyStories-656K")
    assert model.config.tie_embeddings


@pytest.fixture
def copied(model_fixtures, tmp_path):
    """A private copy of a fixture by name."""
    return lambda name: shutil.copytree(model_fixtures / name, tmp_path / name)


def test_layers_after_the_last_are_ignored_where_the_family_says_so(copied):
    folder = copied("glm4_moe")
    extra = np.zeros(2, np.float32)
    rewrite(folder, lambda t: t.update({"model.layers.3.eh_proj.weight": extra, "model.layers.12.x": extra}))
    assert models.load_model(folder).leaves
    rewrite(folder, lambda t: t.update({"model.layers.2.eh_proj.weight": extra}))
    refused(folder, "holds tensor model.layers.2.eh_proj.weight that")
    other = copied("mixtral")
    rewrite(other, lambda t: t.update({"model.layers.3.eh_proj.weight": extra}))
    refused(other, "holds tensor model.layers.3.eh_proj.weight that")


def test_missing_expert(copied):
    folder = copied("qwen3_moe")
    rewrite(folder, lambda t: t.pop("model.layers.2.mlp.experts.5.up_proj.weight"))
    refused(folder, "lacks tensor model.layers.2.mlp.experts.5.up_proj.weight")


@pytest.mark.parametrize("shape", [(100, 48), (7,)])
def test_fused_tensor_of_wrong_shape(copied, shape):
    folder = copied("phi3")
    name = "model.layers.1.self_attn.qkv_proj.weight"
    rewrite(folder, lambda t: t.update({name: np.zeros(shape, np.float32)}))
    refused(folder, f"the part of {name} that is attention.", "config.json wants [")


@pytest.mark.parametrize(
    ("name", "fields", "part"),
    [
        ("glm4_moe", {"n_group": 4}, "n_group (4) must divide n_routed_experts (6)"),
        ("glm4_moe", {"topk_group": 1}, "num_experts_per_tok must be at most 2, not 3"),
        ("mixtral", {"num_local_experts": None}, "num_local_experts is missing"),
        ("minimax_m2", {"scoring_func": "softmax"}, "scoring_func 'softmax' is not supported"),
        ("minimax_m2", {"rotary_dim": 9}, "rotary_dim must be even"),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "short_factor must list 4 numbers"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention True is not supported"),
    ],
)
def test_bad_fields_of_families(copied, name, fields, part):
    folder = copied(name)
    edit(folder, **fields)
    refused(folder, part)
