"""Image towers in float64 NumPy, straight from the papers and the checkpoints' names: the oracle of our fixtures.

Shares no code with the package. Patches are taken in the order in which the hub's preprocessing lays them out.
"""

import math

import numpy as np
import reference

QWEN_MEAN, QWEN_STD = np.full(3, 0.5), np.full(3, 0.5)


def linear(x, w, name):
    return x @ w[name + ".weight"].reshape(len(w[name + ".weight"]), -1).T + w.get(name + ".bias", 0.0)


def layer_norm(x, w, name, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(x.var(axis=-1, keepdims=True) + eps) * w[name + ".weight"] + w[name + ".bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def quick_gelu(x):
    return x * reference.sigmoid(1.702 * x)


def silu(x):
    return x * reference.sigmoid(x)


def attention(q, k, v, allowed):
    """[P, N, H] each, one head after the other."""
    out = np.zeros_like(v)
    for head in range(q.shape[1]):
        scores = np.where(allowed, q[:, head] @ k[:, head].T / math.sqrt(q.shape[2]), -np.inf)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = p / p.sum(axis=1, keepdims=True) @ v[:, head]
    return out


def turned(x, places):
    """Rotates the first half of the pairs by row, the second by column; places [P, 2]."""
    dim = x.shape[-1]
    freq = 10000.0 ** (-np.arange(0, dim // 2, 2) / (dim // 2))
    angle = np.concatenate([places[:, :1] * freq, places[:, 1:] * freq], axis=1)[:, None]
    z = (x[..., : dim // 2] + 1j * x[..., dim // 2 :]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=-1)


def patch_places(rows, columns, merge):
    """(row, column) of each patch: the patches of a square one after the other."""
    return np.array(
        [
            (row * merge + i, column * merge + j)
            for row in range(rows // merge)
            for column in range(columns // merge)
            for i in range(merge)
            for j in range(merge)
        ]
    )


def clip(config, w, pixels):
    """[P, 3 * patch * patch] -> embeddings of LLaVA-1.5."""
    vision = config["vision_config"]
    heads, eps = vision["num_attention_heads"], 1e-5
    x = linear(pixels, w, "vision_tower.embeddings.patch_embedding")
    x = np.concatenate([w["vision_tower.embeddings.class_embedding"][None], x])
    x = layer_norm(x + w["vision_tower.embeddings.position_embedding.weight"], w, "vision_tower.pre_layrnorm", eps)
    for layer in range(vision["num_hidden_layers"] + 1 + config["vision_feature_layer"]):
        name = f"vision_tower.encoder.layers.{layer}."
        y = layer_norm(x, w, name + "layer_norm1", eps)
        q, k, v = (linear(y, w, f"{name}self_attn.{part}_proj").reshape(len(y), heads, -1) for part in "qkv")
        x = x + linear(attention(q, k, v, True).reshape(x.shape), w, name + "self_attn.out_proj")
        y = layer_norm(x, w, name + "layer_norm2", eps)
        x = x + linear(quick_gelu(linear(y, w, name + "mlp.fc1")), w, name + "mlp.fc2")
    inner = gelu(linear(x[1:], w, "multi_modal_projector.linear_1"))
    return linear(inner, w, "multi_modal_projector.linear_2")[:, None]


def qwen2_5(config, w, pixels, rows, columns):
    """One image [P, 3 * 2 * patch * patch] -> its embeddings, of Qwen2.5-VL."""
    vision = config["vision_config"]
    heads, merge = vision["num_heads"], vision["spatial_merge_size"]
    places = patch_places(rows, columns, merge)
    side = vision["window_size"] // vision["patch_size"]
    window = places // side
    same = (window[:, None] == window[None]).all(axis=-1)
    x = linear(pixels, w, "visual.patch_embed.proj")
    for block in range(vision["depth"]):
        name = f"visual.blocks.{block}."
        y = reference.rms_norm(x, w[name + "norm1.weight"], 1e-6)
        q, k, v = np.split(linear(y, w, name + "attn.qkv").reshape(len(y), 3 * heads, -1), 3, axis=1)
        allowed = True if block in vision["fullatt_block_indexes"] else same
        y = attention(turned(q, places), turned(k, places), v, allowed).reshape(x.shape)
        x = x + linear(y, w, name + "attn.proj")
        y = reference.rms_norm(x, w[name + "norm2.weight"], 1e-6)
        inner = silu(linear(y, w, name + "mlp.gate_proj")) * linear(y, w, name + "mlp.up_proj")
        x = x + linear(inner, w, name + "mlp.down_proj")
    x = reference.rms_norm(x, w["visual.merger.ln_q.weight"], 1e-6).reshape(-1, merge**2 * x.shape[1])
    return linear(gelu(linear(x, w, "visual.merger.mlp.0")), w, "visual.merger.mlp.2")[:, None]


def qwen3(config, w, pixels, rows, columns):
    """One image -> [tokens, 1 + taps, D]: its embeddings, and what the decoder's first layers add, of Qwen3-VL."""
    vision = config["vision_config"]
    heads, merge = vision["num_heads"], vision["spatial_merge_size"]
    places = patch_places(rows, columns, merge)
    x = linear(pixels, w, "model.visual.patch_embed.proj") + stretched(w, places, rows, columns)
    taps = []
    for block in range(vision["depth"]):
        name = f"model.visual.blocks.{block}."
        y = layer_norm(x, w, name + "norm1", 1e-6)
        q, k, v = np.split(linear(y, w, name + "attn.qkv").reshape(len(y), 3 * heads, -1), 3, axis=1)
        y = attention(turned(q, places), turned(k, places), v, True).reshape(x.shape)
        x = x + linear(y, w, name + "attn.proj")
        y = reference.gelu_tanh(linear(layer_norm(x, w, name + "norm2", 1e-6), w, name + "mlp.linear_fc1"))
        x = x + linear(y, w, name + "mlp.linear_fc2")
        if block in vision["deepstack_visual_indexes"]:
            tap = f"model.visual.deepstack_merger_list.{vision['deepstack_visual_indexes'].index(block)}."
            whole = layer_norm(x.reshape(-1, merge**2 * x.shape[1]), w, tap + "norm", 1e-6)
            taps.append(linear(gelu(linear(whole, w, tap + "linear_fc1")), w, tap + "linear_fc2"))
    x = layer_norm(x, w, "model.visual.merger.norm", 1e-6).reshape(-1, merge**2 * x.shape[1])
    x = linear(gelu(linear(x, w, "model.visual.merger.linear_fc1")), w, "model.visual.merger.linear_fc2")
    return np.stack([x, *taps], axis=1)


def stretched(w, places, rows, columns):
    """The learned square of positions, laid over the image corner to corner."""
    table = w["model.visual.pos_embed.weight"]
    side = math.isqrt(len(table))
    square, out = table.reshape(side, side, -1), []
    for place in places:
        low, share = zip(
            *[divmod(i * (side - 1) / max(n - 1, 1), 1) for i, n in zip(place, (rows, columns), strict=True)],
            strict=True,
        )
        (top, left), (down, right) = np.array(low, int), share
        bottom, far = min(top + 1, side - 1), min(left + 1, side - 1)
        upper = (1 - right) * square[top, left] + right * square[top, far]
        out.append((1 - down) * upper + down * ((1 - right) * square[bottom, left] + right * square[bottom, far]))
    return np.array(out)


def positions(config, ids, grids):
    """[3, T]: an image's tokens share a time and count rows and columns from it (Qwen2-VL, section 2.1)."""
    merge, image = config["vision_config"]["spatial_merge_size"], config["image_token_id"]
    out, following, at, grids = [], 0, 0, list(grids)
    while at < len(ids):
        if ids[at] != image or not grids:  # what the model says itself is text, also a placeholder
            out.append((following,) * 3)
            following, at = following + 1, at + 1
            continue
        rows, columns = (n // merge for n in grids.pop(0))
        out += [(following, following + row, following + column) for row in range(rows) for column in range(columns)]
        following, at = following + max(rows, columns), at + rows * columns
    return np.array(out).T


def embeddings(config, weights, images):
    """[tokens of all images, 1 + taps, D] of (pixels, rows, columns)."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    if config["model_type"] == "llava":
        return np.concatenate([clip(config, w, pixels) for pixels, _, _ in images])
    run = qwen2_5 if config["model_type"] == "qwen2_5_vl" else qwen3
    return np.concatenate([run(config, w, *image) for image in images])


def logits(config, weights, ids, images):
    """Logits [T, V], and the embeddings of the images."""
    found = embeddings(config, weights, images)
    text = {**config, **config.get("text_config", {})}
    kinds = {"llava": "llama", "qwen2_5_vl": "qwen2", "qwen3_vl": "qwen3"}
    prefixes = {"llava": ("language_model.", ""), "qwen3_vl": ("model.language_model.", "model.")}
    theirs, ours = prefixes.get(config["model_type"], ("model.", "model."))
    own = {name.replace(theirs, ours, 1): value for name, value in weights.items()}
    text["model_type"] = kinds[config["model_type"]]
    token = config.get("image_token_id", config.get("image_token_index"))
    if config["model_type"] != "llava":
        text["positions"] = positions(config, ids, [image[1:] for image in images])
    is_image = np.asarray(ids) == token
    is_image &= np.cumsum(is_image) <= len(found)
    return reference.logits(text, own, ids, images=(is_image, found))[0], found
