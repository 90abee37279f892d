"""Which quantised checkpoints are read, as what, and how each wrong one is refused in one clear sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models.checkpoint import open_checkpoint
from jaxserve.models.config import MoeSpec, WeightFormat
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_quantization import read_stored_weights
from jaxserve.models.kernels.blocked import Blocked
from jaxserve.models.kernels.choice import Backends
from jaxserve.models.kernels.tpu_matmul import TpuMatmul
from jaxserve.models.loading import find_pieces
from jaxserve.models.model import plan_model
from jaxserve.models.weight_choice import suit_kernels

GATE = "model.layers.0.mlp.gate_proj.weight"
EXPERT = "model.layers.0.block_sparse_moe.experts.2.w1.weight"


@pytest.fixture
def copied(model_fixtures, tmp_path):
    """A private copy of a fixture by name."""
    return lambda name: shutil.copytree(model_fixtures / name, tmp_path / name)


def declare(folder, **fields):
    """Change fields of quantization_config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {**config.get("quantization_config", {}), **fields}
    path.write_text(json.dumps(config))


def rewrite(folder, change):
    """Change tensors (the format's own reader in NumPy does not know FP8)."""
    tensors = {name: np.array(tensor.view()) for name, tensor in open_checkpoint(folder).items()}
    change(tensors)
    save_file({name: np.array(value, order="C") for name, value in tensors.items()}, folder / "model.safetensors")


def refused(folder, *parts, **options):
    with pytest.raises(ModelLoadError) as caught:
        models.load_model(folder, **options)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert message.endswith(".")


def values(model, config):
    """Name and layers -> array, of a model with unrolled layers."""
    plan = plan_model(config, mesh=model.mesh, dtype=model.dtype, layer_loop="unroll")
    return {(leaf.name, leaf.layers): np.asarray(a) for leaf, a in zip(plan.leaves, model.leaves, strict=True)}


def dequantised(folder):
    model = models.load_model(folder, weights="dequantize")
    return values(model, model.config)


COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {"all": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}},
    "ignore": ["lm_head"],
}


def quantise(tensors, dtype, largest, scale_shape, suffix):
    """Quantise every projection of a Llama with scales of rows or tensors; returns what it then stands for."""
    meant = {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        wide = np.asarray(tensors[name], np.float32)
        axes = 1 if len(scale_shape) == 2 else None
        scale = (np.abs(wide).max(axis=axes, keepdims=axes is not None) / largest).astype(np.float32)
        codes = np.rint(wide / scale) if dtype == np.int8 else wide / scale
        tensors[name] = codes.astype(dtype)
        tensors[name.removesuffix("weight") + suffix] = np.reshape(
            scale, [scale.size if n == "O" else n for n in scale_shape]
        )
        meant[name] = tensors[name].astype(np.float32) * scale
    return meant


@pytest.mark.parametrize(
    ("declared", "dtype", "largest", "scale_shape"),
    [
        (COMPRESSED, np.int8, 127, ("O", 1)),
        ({"quant_method": "fp8", "activation_scheme": "static"}, ml_dtypes.float8_e4m3fn, 448, ()),
        ({"quant_method": "fp8", "activation_scheme": "static"}, ml_dtypes.float8_e4m3fn, 448, (1,)),
    ],
    ids=["int8 rows", "fp8 tensors", "fp8 tensors of one number"],
)
def test_scales_of_rows_and_tensors(copied, declared, dtype, largest, scale_shape):
    """And scales of activations are left aside: activations are not quantised."""
    folder = copied("llama_one_kv_head")
    declare(folder, **declared)
    meant = {}

    def change(tensors):
        meant.update(quantise(tensors, dtype, largest, scale_shape, "weight_scale"))
        tensors["model.layers.0.mlp.gate_proj.input_scale"] = np.ones((), np.float32)

    rewrite(folder, change)
    found = dequantised(folder)
    for layer in (0, 1):
        for ours, theirs in (("mlp.gate_proj", "mlp.gate_proj"), ("attention.o_proj", "self_attn.o_proj")):
            wanted = meant[f"model.layers.{layer}.{theirs}.weight"]
            np.testing.assert_array_equal(found[f"{ours}.weight", (layer,)], wanted)
    kept = models.load_model(folder)
    held = values(kept, kept.config)
    codes = held["mlp.gate_proj.weight", (0,)]
    assert codes.dtype == (np.int8 if dtype == np.int8 else np.uint8)
    assert held["mlp.gate_proj.weight_scale", (0,)].shape == (56,)


def test_blocks_of_compressed_tensors(copied):
    """The same tensors as DeepSeek's FP8 under another name."""
    folder = copied("minimax_m2_fp8")
    before = dequantised(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [20, 32]}
    config["quantization_config"] = {
        **COMPRESSED,
        "format": "float-quantized",
        "config_groups": {"a": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head", "re:.*block_sparse_moe\\.gate$", "re:model\\.layers\\.1\\.self_attn.*"],
    }
    path.write_text(json.dumps(config))
    rewrite(folder, lambda t: [t.update({n.removesuffix("_inv"): t.pop(n)}) for n in list(t) if n.endswith("_inv")])
    after = dequantised(folder)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_fused_tensors_are_cut_with_their_scales(copied):
    folder = copied("phi3")
    declare(folder, **{**COMPRESSED, "format": "int-quantized"})
    meant = {}
    rewrite(folder, lambda t: meant.update(quantise(t, np.int8, 127, ("O", 1), "weight_scale")))
    found = dequantised(folder)
    fused = meant["model.layers.1.self_attn.qkv_proj.weight"]
    np.testing.assert_array_equal(found["attention.k_proj.weight", (1,)], fused[48:72])
    np.testing.assert_array_equal(
        found["mlp.up_proj.weight", (0,)], meant["model.layers.0.mlp.gate_up_proj.weight"][56:]
    )


def test_what_is_left_unquantised(model_fixtures):
    config = models.load_config(model_fixtures / "minimax_m2_fp8")
    form = WeightFormat("e4m3", 32)
    assert [layer.weights for layer in config.layers] == [form] * 3
    left = [{path for path in layer.unquantised if "_proj" in path} for layer in config.layers]
    assert left[0] == left[2] == set()
    assert left[1] == {f"attention.{name}_proj" for name in "qkvo"}
    assert len(models.config.layer_groups(config, "scan")) == 3


@pytest.mark.parametrize(
    ("module", "covered"),
    [
        ("model.layers.1.mlp.gate_proj", True),
        ("model.layers.1.mlp.gate", False),
        ("model.layers.10.self_attn.q_proj", True),
        ("model.layers.1.self_attn.q_proj", False),
        ("model.layers.3.mlp.shared_experts.up_proj", False),
        ("lm_head", False),
    ],
)
def test_names_of_modules_are_matched_in_whole_parts(module, covered):
    names = ["lm_head", "gate", "model.layers.1.self_attn", "model.layers.*.mlp.shared_experts"]
    fields = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": names}
    stored = read_stored_weights(HubConfig({"quantization_config": fields}, "config.json"))
    assert stored.covers(module) == covered


@pytest.mark.parametrize(
    ("name", "quantize"),
    [("minimax_m2_fp8", None), ("gpt_oss_mxfp4", None), ("gpt_oss_mxfp4", "int8"), ("phi3", "int8")],
)
def test_parts_of_recoded_weights_are_those_of_the_whole(name, quantize, model_fixtures):
    """As shards read them: any rows and inputs, also in the middle of a block."""
    path = model_fixtures / name
    config = models.choose_weights(models.load_config(path), "dequantize", quantize)
    plan = plan_model(config, mesh=models.make_mesh((1, 1, 1)), dtype="float32", layer_loop="scan")
    for leaf, pieces in zip(plan.leaves, find_pieces(plan, path), strict=True):
        shape = leaf.value.shape
        whole = np.empty(shape, leaf.value.dtype)
        pieces.read((slice(None),) * len(shape), whole)
        index = tuple(slice(size // 3, size - size // 4) for size in shape)
        part = np.empty_like(whole[index])
        pieces.read(index, part)
        np.testing.assert_array_equal(part, whole[index], err_msg=leaf.name)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("minimax_m2_fp8", {"fmt": "float8_e4m3fn", "scale_fmt": "ue8m0"}),
        ("glm4_moe_fp8_rows", {"sparsity_config": {"format": "dense"}, "version": "0.11"}),
        ("glm4_moe_fp8_rows", {"sparsity_config": {}, "quantization_status": None}),
    ],
)
def test_other_spellings(copied, name, fields):
    folder = copied(name)
    before = models.load_config(folder)
    declare(folder, **fields)
    assert models.load_config(folder) == before


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "modelopt", None, 3])
def test_unsupported_methods_are_named(copied, method):
    folder = copied("llama_one_kv_head")
    declare(folder, quant_method=method)
    refused(folder, f"method {method!r} is not supported (supported: compressed-tensors, fp8, mxfp4)")


@pytest.mark.parametrize(
    ("name", "fields", "part"),
    [
        ("minimax_m2_fp8", {"fmt": "e5m2"}, "quantization_config: fmt 'e5m2' is not supported"),
        ("minimax_m2_fp8", {"weight_block_size": [128]}, "weight_block_size must be two positive integers"),
        ("minimax_m2_fp8", {"weight_block_size": [20, 0]}, "weight_block_size must be two positive integers"),
        ("minimax_m2_fp8", {"modules_to_not_convert": "gate"}, "modules_to_not_convert must list strings"),
        ("minimax_m2_fp8", {"modules_to_not_convert": ["("]}, "which is no regular expression"),
        ("glm4_moe_fp8_rows", {"format": "pack-quantized"}, "format 'pack-quantized' is not supported"),
        (
            "glm4_moe_fp8_rows",
            {"sparsity_config": {"format": "sparse-24-bitmask"}},
            "format 'sparse-24-bitmask' is not",
        ),
        ("glm4_moe_fp8_rows", {"config_groups": {}}, "config_groups must be one group, not 0"),
        ("glm4_moe_fp8_rows", {"ignore": ["re:["]}, "which is no regular expression"),
        ("llama_one_kv_head", {"quant_method": "mxfp4"}, "'mxfp4' is not supported for llama"),
    ],
)
def test_unsupported_settings_are_named(copied, name, fields, part):
    folder = copied(name)
    declare(folder, **fields)
    refused(folder, part)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"num_bits": 4}, "weights: num_bits 4 is not supported (supported: 8)"),
        ({"symmetric": False}, "weights: symmetric False is not supported"),
        ({"strategy": "group"}, "weights: strategy 'group' is not supported"),
        ({"type": "int"}, "weights: type 'int' is not supported"),
    ],
)
def test_unsupported_weights_of_compressed_tensors(copied, change, part):
    folder = copied("glm4_moe_fp8_rows")
    fields = json.loads((folder / "config.json").read_text())["quantization_config"]
    fields["config_groups"]["group_0"]["weights"].update(change)
    declare(folder, **fields)
    refused(folder, part)


def test_missing_scales(copied):
    folder = copied("minimax_m2_fp8")
    rewrite(folder, lambda t: t.pop(f"{EXPERT}_scale_inv"))
    refused(folder, f"lacks tensor {EXPERT}_scale_inv.")
    refused(folder, f"lacks tensor {EXPERT}_scale_inv.", weights="dequantize")


@pytest.mark.parametrize("shape", [(1, 1), (48,), ()])
def test_scales_of_wrong_shape(copied, shape):
    folder = copied("minimax_m2_fp8")
    rewrite(folder, lambda t: t.update({f"{EXPERT}_scale_inv": np.ones(shape, np.float32)}))
    refused(folder, f"{EXPERT}_scale_inv has shape {list(shape)}, its weight of shape [16, 48] wants [1, 2]")


def test_blocks_of_another_size_than_declared(copied):
    folder = copied("minimax_m2_fp8")
    declare(folder, weight_block_size=[128, 128])
    refused(folder, "its weight of shape", "wants [1, 1]")


def test_quantised_where_nothing_is_announced(copied):
    folder = copied("llama_one_kv_head")
    rewrite(folder, lambda t: t.update({GATE: t[GATE].astype(ml_dtypes.float8_e4m3fn)}))
    refused(folder, f"{GATE} is float8_e4m3fn, a quantised type that config.json does not announce")
    folder = copied("minimax_m2_fp8")
    name = "model.layers.1.self_attn.q_proj.weight"
    rewrite(folder, lambda t: t.update({name: t[name].astype(np.int8)}))
    refused(folder, f"{name} is int8, a quantised type")


def test_unquantised_where_codes_are_announced(copied):
    folder = copied("minimax_m2_fp8")
    rewrite(folder, lambda t: t.update({EXPERT: t[EXPERT].astype(np.float32)}))
    refused(folder, f"{EXPERT} is float32, quantization_config of config.json promises float8_e4m3fn")
    folder = copied("gpt_oss_mxfp4")
    name = "model.layers.1.mlp.experts.down_proj_blocks"
    rewrite(folder, lambda t: t.update({name: t[name].astype(np.float16)}))
    refused(folder, f"{name} is float16, quantization_config of config.json promises uint8")


def test_mxfp4_of_another_shape(copied):
    folder = copied("gpt_oss_mxfp4")
    name = "model.layers.1.mlp.experts.gate_up_proj_scales"
    rewrite(folder, lambda t: t.update({name: t[name][..., :1]}))
    refused(folder, f"the part of {name} that is mlp.experts.gate_proj.weight_scale has shape [6, 64, 1]")


def test_truncated(copied):
    path = copied("minimax_m2_fp8") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    refused(path.parent, "is truncated: its header promises")


def test_unknown_type(copied):
    path = copied("minimax_m2_fp8") / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F8_E4M3"', b'"F8_E9M9"', 1))
    refused(path.parent, "has the unsupported type F8_E9M9")


@pytest.mark.parametrize("name", ["deepseek_v3_fp8", "minimax_m2_fp8"])
def test_blocks_stay_in_experts_alone_where_kernels_want_it(model_fixtures, name):
    """What the TPU's kernels take: experts are the codes of the file, all else is what codes stand for."""
    backends = Backends(Blocked(), TpuMatmul(interpret=True))
    config = suit_kernels(models.load_config(model_fixtures / name), blocks_in_experts=True)
    model = models.load_model(model_fixtures / name, backends=backends)
    assert model.config == config
    found = values(model, config)
    kept = models.load_model(model_fixtures / name)
    plain = models.load_model(model_fixtures / name, weights="dequantize")
    codes, numbers = values(kept, kept.config), values(plain, plain.config)
    experts = {key for key in found if key[0].startswith("mlp.experts.")}
    assert len(experts) == 6 * sum(isinstance(layer.mlp, MoeSpec) for layer in config.layers)
    for key, value in found.items():
        np.testing.assert_array_equal(value, codes[key] if key in experts else numbers[key], err_msg=str(key))
    assert {found[key].dtype.name for key in experts} == {"uint8", "float32"}


def test_models_without_experts_keep_their_blocks(model_fixtures):
    dense = models.load_config(model_fixtures / "deepseek_v3_fp8")
    dense = replace(dense, layers=dense.layers[:1])
    assert not isinstance(dense.layers[0].mlp, MoeSpec)
    assert suit_kernels(dense, blocks_in_experts=True) == dense
