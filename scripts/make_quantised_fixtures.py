"""Write the quantised checkpoints of tests/fixtures/models: one for each way in which hub checkpoints store weights.

    python scripts/make_quantised_fixtures.py

The models are those of make_model_fixtures.py in other sizes; blocks are ragged on both sides. Expected are the logits
of the float64 reference with the dequantised weights. Quantising shares no code with the package.
"""

import importlib.util
import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "fixtures" / "models"
FP8_BLOCK = (20, 32)
GPT_OSS_LEFT = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False},
            "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
        }
    },
    "ignore": ["lm_head", "model.layers.0.self_attn.o_proj", "re:.*mlp\\.gate$"],
    "kv_cache_scheme": None,
}
FP8 = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": list(FP8_BLOCK),
    "modules_to_not_convert": ["lm_head", "gate", "model.layers.1.self_attn"],
}
VARIANTS = {
    "deepseek_v3_fp8": ("deepseek_v3", {}, {**FP8, "modules_to_not_convert": None}, "nothing"),
    "glm4_moe_fp8_rows": ("glm4_moe", {}, COMPRESSED, "layers.0.self_attn.o_proj"),
    "gpt_oss_mxfp4": (
        "gpt_oss",
        {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "layer_types": None},
        {"quant_method": "mxfp4", "modules_to_not_convert": GPT_OSS_LEFT},
        "self_attn",
    ),
    "minimax_m2_fp8": ("minimax_m2", {"num_hidden_layers": 3}, FP8, "layers.1.self_attn"),
}
"""Name -> (model it varies, its other fields, quantization_config, projections that are left as they are)."""
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def quantise(method, weights, left):
    """Tensors to store and, under the names of `weights`, what they stand for."""
    stored, meant = {}, {}
    for name, weight in weights.items():
        wide = weight.astype(np.float64)
        if (
            left in name
            or not re.search(r"layers\.\d+\..*(_proj\w*|w[123])(\.weight)?$", name)
            or name.endswith("bias")
        ):
            stored[name], meant[name] = weight, wide
        elif method == "mxfp4":
            stored[f"{name}_blocks"], stored[f"{name}_scales"], meant[name] = mxfp4(wide)
        elif method == "fp8":
            stored[name], stored[f"{name}_scale_inv"], meant[name] = fp8_blocks(wide)
        else:
            stored[name], stored[f"{name}_scale"], meant[name] = fp8_rows(wide)
    return stored, meant


def fp8_rows(weight):
    """float64 [O, I] -> codes, bfloat16 scales [O, 1], what they stand for."""
    scales = (np.abs(weight).max(axis=1, keepdims=True) / 448).astype(ml_dtypes.bfloat16)
    wide = scales.astype(np.float64)
    codes = (weight / wide).clip(-448, 448).astype(ml_dtypes.float8_e4m3fn)
    return codes, scales, codes.astype(np.float64) * wide


def fp8_blocks(weight):
    """float64 [O, I] -> codes, float32 scales of ragged blocks, what they stand for."""
    rows, columns = FP8_BLOCK
    codes, meant = np.empty(weight.shape, ml_dtypes.float8_e4m3fn), np.empty(weight.shape)
    scales = np.empty((-(-weight.shape[0] // rows), -(-weight.shape[1] // columns)), np.float32)
    for row, column in np.ndindex(scales.shape):
        place = np.s_[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        scales[row, column] = np.abs(weight[place]).max() / 448
        codes[place] = (weight[place] / np.float64(scales[row, column])).clip(-448, 448).astype(codes.dtype)
        meant[place] = codes[place].astype(np.float64) * np.float64(scales[row, column])
    return codes, scales, meant


def mxfp4(weight):
    """float64 [E, in, out] -> codes [E, out, in / 32, 16], scales [E, out, in / 32], what they stand for."""
    experts, inputs, outputs = weight.shape
    blocks = weight.swapaxes(1, 2).reshape(experts, outputs, inputs // 32, 32)
    exponents = np.floor(np.log2(np.abs(blocks).max(axis=-1))) - 2
    scaled = blocks / 2.0 ** exponents[..., None]
    codes = np.abs(scaled[..., None] - FP4).argmin(axis=-1).astype(np.uint8)
    meant = (FP4[codes] * 2.0 ** exponents[..., None]).reshape(experts, outputs, inputs).swapaxes(1, 2)
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + 127).astype(np.uint8), meant


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    models = module_at(ROOT / "scripts" / "make_model_fixtures.py")
    reference = module_at(ROOT / "tests" / "models" / "reference.py")
    for number, (name, (base, fields, quantization, left)) in enumerate(VARIANTS.items()):
        config = {**models.SHARED, "bos_token_id": 1, "eos_token_id": 2, **models.MODELS[base], **fields}
        if config.get("layer_types", ()) is None:
            config["layer_types"] = models.MODELS[base]["layer_types"][: config["num_hidden_layers"]]
        rng = np.random.default_rng(100 + number)
        drawn = {key: models.draw(key, shape, rng, config) for key, shape in sorted(models.shapes(config).items())}
        stored, meant = quantise(quantization["quant_method"], drawn, left)
        ids = rng.integers(0, config["vocab_size"], 45)
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**config, "quantization_config": quantization}, indent=1)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        save_file(
            {key: np.ascontiguousarray(value) for key, value in stored.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        expected, routing = reference.logits(config, meant, ids)
        expected = expected.astype(np.float32)
        np.savez_compressed(
            folder / "expected.npz", ids=ids.astype(np.int32), logits=expected, routing=routing.astype(np.int32)
        )
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {size / 1000:.0f} kB, logits std {expected.std():.2f}")


if __name__ == "__main__":
    main()
