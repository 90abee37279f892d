"""Write tiny random models that read images to tests/fixtures/models, with the logits of the float64 reference.

    python scripts/make_vision_fixtures.py

qwen3_vl is a whole model directory: tokenizer, chat template and preprocessing make it a model that a server serves.
The other two are weights and configuration only.
"""

import importlib
import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "fixtures" / "models"
sys.path.insert(0, str(ROOT / "tests" / "models"))

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<image>",
]
VOCAB, BYTES = 264, 256
TOKEN = {name: BYTES + number for number, name in enumerate(SPECIAL)}
TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'image' or 'image_url' in part or 'image' in part %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}
{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "bos_token_id": TOKEN["<|endoftext|>"],
    "eos_token_id": TOKEN["<|im_end|>"],
}
QWEN_TOKENS = {
    "image_token_id": TOKEN["<|image_pad|>"],
    "vision_start_token_id": TOKEN["<|vision_start|>"],
    "vision_end_token_id": TOKEN["<|vision_end|>"],
    "tie_word_embeddings": False,
}
QWEN_TOWER = {
    "depth": 3,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_heads": 2,
    "out_hidden_size": 48,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
MODELS = {
    "qwen3_vl": {
        "model_type": "qwen3_vl",
        "architectures": ["Qwen3VLForConditionalGeneration"],
        **QWEN_TOKENS,
        "text_config": {
            **TEXT,
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
        },
        "vision_config": {
            **QWEN_TOWER,
            "model_type": "qwen3_vl",
            "hidden_act": "gelu_pytorch_tanh",
            "num_position_embeddings": 25,
            "deepstack_visual_indexes": [0, 1],
        },
    },
    "qwen2_5_vl": {
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        **QWEN_TOKENS,
        **{key: value for key, value in TEXT.items() if key != "head_dim"},
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {
            **QWEN_TOWER,
            "model_type": "qwen2_5_vl",
            "hidden_act": "silu",
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
    },
    "llava": {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "image_token_index": TOKEN["<|image_pad|>"],
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {**TEXT, "model_type": "llama", "num_hidden_layers": 2},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 24,
            "intermediate_size": 28,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 12,
            "patch_size": 4,
        },
    },
}
NORMALISATION = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 0.3]}
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 64, "longest_edge": 4096},
    **NORMALISATION,
}
SIZES = [(24, 16), (16, 24)]
"""Width and height of the pictures, which need no resizing."""


def decoder_shapes(text, prefix, *, bias, qk_norm):
    """Names and shapes of the decoder."""
    width, inner = text["hidden_size"], text["intermediate_size"]
    dim = text.get("head_dim") or width // text["num_attention_heads"]
    heads = {"q": text["num_attention_heads"] * dim, "k": text["num_key_value_heads"] * dim}
    heads["v"] = heads["k"]
    table = {f"{prefix}embed_tokens.weight": (VOCAB, width), f"{prefix}norm.weight": (width,)}
    for layer in range(text["num_hidden_layers"]):
        own = f"{prefix}layers.{layer}."
        table |= {own + f"{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
        table |= {own + f"self_attn.{name}_proj.weight": (size, width) for name, size in heads.items()}
        table |= {own + f"self_attn.{name}_proj.bias": (size,) for name, size in heads.items() if bias}
        table |= {own + f"self_attn.{name}_norm.weight": (dim,) for name in "qk" if qk_norm}
        table |= {own + "self_attn.o_proj.weight": (width, heads["q"]), own + "mlp.down_proj.weight": (width, inner)}
        table |= {own + f"mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
    return table


def with_bias(name, *shape):
    return {name + ".weight": shape, name + ".bias": shape[:1]}


def norm(name, size):
    return {name + ".weight": (size,), name + ".bias": (size,)}


def qwen_shapes(config, prefix):
    """Names and shapes of Qwen's two towers."""
    vision, old = config["vision_config"], config["model_type"] == "qwen2_5_vl"
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    square, out = 4 * width, vision["out_hidden_size"]
    table = {prefix + "patch_embed.proj.weight": (width, 3, 2, patch, patch)}
    for block in range(vision["depth"]):
        own = f"{prefix}blocks.{block}."
        table |= with_bias(own + "attn.qkv", 3 * width, width) | with_bias(own + "attn.proj", width, width)
        if old:
            table |= {own + "norm1.weight": (width,), own + "norm2.weight": (width,)}
            table |= with_bias(own + "mlp.gate_proj", inner, width) | with_bias(own + "mlp.up_proj", inner, width)
            table |= with_bias(own + "mlp.down_proj", width, inner)
        else:
            table |= norm(own + "norm1", width) | norm(own + "norm2", width)
            table |= with_bias(own + "mlp.linear_fc1", inner, width) | with_bias(own + "mlp.linear_fc2", width, inner)
    if old:
        table |= with_bias(prefix + "merger.mlp.0", square, square) | with_bias(prefix + "merger.mlp.2", out, square)
        return table | {prefix + "merger.ln_q.weight": (width,)}
    table |= {prefix + "patch_embed.proj.bias": (width,)}
    table |= {prefix + "pos_embed.weight": (vision["num_position_embeddings"], width)}
    mergers = [("merger.", width)] + [(f"deepstack_merger_list.{tap}.", square) for tap in range(2)]
    for own, size in mergers:
        table |= norm(f"{prefix}{own}norm", size)
        table |= with_bias(f"{prefix}{own}linear_fc1", square, square)
        table |= with_bias(f"{prefix}{own}linear_fc2", out, square)
    return table


def clip_shapes(config):
    """Names and shapes of CLIP's tower and LLaVA's projector."""
    vision, text = config["vision_config"], config["text_config"]
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    places = (vision["image_size"] // patch) ** 2 + 1
    table = {
        "vision_tower.embeddings.class_embedding": (width,),
        "vision_tower.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_tower.embeddings.position_embedding.weight": (places, width),
        **norm("vision_tower.pre_layrnorm", width),
        **norm("vision_tower.post_layernorm", width),
        **with_bias("multi_modal_projector.linear_1", text["hidden_size"], width),
        **with_bias("multi_modal_projector.linear_2", text["hidden_size"], text["hidden_size"]),
    }
    for layer in range(vision["num_hidden_layers"]):
        own = f"vision_tower.encoder.layers.{layer}."
        table |= norm(own + "layer_norm1", width) | norm(own + "layer_norm2", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table |= with_bias(f"{own}self_attn.{name}", width, width)
        table |= with_bias(own + "mlp.fc1", inner, width) | with_bias(own + "mlp.fc2", width, inner)
    return table


def shapes(config):
    """Names and shapes of all tensors."""
    text = {**config, **config.get("text_config", {})}
    head = {"lm_head.weight": (VOCAB, text["hidden_size"])}
    match config["model_type"]:
        case "llava":
            own = decoder_shapes(text, "language_model.model.", bias=False, qk_norm=False)
            return own | clip_shapes(config) | {"language_model." + name: shape for name, shape in head.items()}
        case "qwen2_5_vl":
            return decoder_shapes(text, "model.", bias=True, qk_norm=False) | qwen_shapes(config, "visual.") | head
        case _:
            own = decoder_shapes(text, "model.language_model.", bias=False, qk_norm=True)
            return own | qwen_shapes(config, "model.visual.") | head


def draw(name, shape, rng):
    """A random tensor: norms lie around one, biases are small, matrices keep the scale of their input."""
    values = rng.standard_normal(shape)
    if len(shape) == 1 and name.endswith("weight"):
        values = 0.2 * values + 1
    elif len(shape) == 1:
        values = 0.2 * values
    elif "embed_tokens" in name or "pos" in name:
        values = 0.7 * values
    else:
        values = values * ((4.0 if "lm_head" in name else 1.5) * np.prod(shape[1:]) ** -0.5)
    return values.astype(ml_dtypes.bfloat16)


def cut(picture, config):
    """Patches of a picture as the hub's preprocessing lays them out, normalised; rows and columns of them."""
    patch = config["vision_config"]["patch_size"]
    merge = config["vision_config"].get("spatial_merge_size", 1)
    frames = config["vision_config"].get("temporal_patch_size", 1)
    values = (picture / 255 - NORMALISATION["image_mean"]) / NORMALISATION["image_std"]
    rows, columns = (side // patch for side in picture.shape[:2])
    reference = importlib.import_module("vision_reference")
    patches = []
    for row, column in reference.patch_places(rows, columns, merge):
        part = values[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        patches.append(np.repeat(part.transpose(2, 0, 1)[:, None], frames, axis=1).reshape(-1))
    return np.array(patches), rows, columns


def expected(config, weights, rng):
    """A prompt with its pictures, and what the reference makes of them."""
    reference = importlib.import_module("vision_reference")
    image, llava = TOKEN["<|image_pad|>"], config["model_type"] == "llava"
    sizes = [(12, 12)] if llava else SIZES
    pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes]
    images = [cut(picture, config) for picture in pictures]
    merge = config["vision_config"].get("spatial_merge_size", 1)
    ids = rng.integers(0, BYTES, 4).tolist()
    for _, rows, columns in images:
        ids += [TOKEN["<|vision_start|>"], *[image] * (rows * columns // merge**2), TOKEN["<|vision_end|>"]]
        ids += rng.integers(0, BYTES, 3).tolist()
    logits, found = reference.logits(config, weights, ids, images)
    greedy = [int(logits[-1].argmax())]
    for _ in range(11):
        greedy.append(int(reference.logits(config, weights, [*ids, *greedy], images)[0][-1].argmax()))
    pixels = [pixels for pixels, _, _ in images]
    arrays = {f"picture_{number}": picture for number, picture in enumerate(pictures)}
    arrays |= {"ids_a": np.array(ids), "logits_a": logits, "greedy_a": np.array(greedy), "image_embeds": found[:, 0]}
    if llava:
        side, patch = images[0][1], config["vision_config"]["patch_size"]
        whole = pixels[0].reshape(side, side, 3, patch, patch).transpose(2, 0, 3, 1, 4)
        return arrays | {"pixel_values": whole.reshape(1, 3, side * patch, side * patch)}
    arrays |= {"pixel_values": np.concatenate(pixels), "image_grid_thw": np.array([(1, r, c) for _, r, c in images])}
    positions = reference.positions(config, ids, [image[1:] for image in images])
    arrays |= {"position_ids_a": positions, "rope_delta_a": np.array([[positions.max() + 1 - len(ids)]])}
    return arrays | {"deepstack_embeds": found[:, 1:].swapaxes(0, 1)}


def byte_tokenizer(special):
    """One token for each byte, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(name, special=True) for name in special])
    assert [made.token_to_id(name) for name in special] == list(range(BYTES, BYTES + len(special)))
    return made


def write_tokenizer(folder):
    byte_tokenizer(SPECIAL).save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def main():
    for number, (name, config) in enumerate(MODELS.items()):
        rng, folder = np.random.default_rng(100 + number), OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        weights = {key: draw(key, shape, rng) for key, shape in sorted(shapes(config).items())}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        arrays = expected(config, weights, rng)
        narrow = {
            key: value.astype(np.float32) if value.dtype == np.float64 else value for key, value in arrays.items()
        }
        np.savez_compressed(folder / "expected.npz", **narrow)
        if name == "llava":
            preprocessor = {"image_processor_type": "CLIPImageProcessor", **NORMALISATION}
            preprocessor |= {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}
        else:
            preprocessor = PREPROCESSOR
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1) + "\n", encoding="utf-8")
        if name == "qwen3_vl":
            write_tokenizer(folder)
        print(f"{name}: logits std {arrays['logits_a'].std():.2f}, greedy {arrays['greedy_a'].tolist()}")


if __name__ == "__main__":
    main()
