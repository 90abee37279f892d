"""Run by test_sharding.py in its own process, with 8 virtual CPU devices: prints what the test compares, as JSON.

`sharded_run.py FIXTURES` runs chosen fixtures on chosen meshes; `sharded_run.py --every DIRECTORY...` runs each of
these checkpoints, ours or golden ones, on the mesh that a server would choose.
"""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from image_inputs import Prompt, embeddings

from jaxserve import models

PAGE = 16


def step(graphdef, leaves, cache, ids, cu, lens, tables, images):
    meta = models.StepMeta.from_rows(cu, lens, tables, ids.shape[0], PAGE)
    out = models.forward(graphdef, leaves, ids, cache, meta, jnp.arange(ids.shape[0]), images)
    return out.logits_NV, out.cache, out.routing


def expected_of(folder):
    """Token ids, logits, sorted experts (None: dense) and greedy continuation (golden checkpoints) of a directory."""
    if (folder / "expected.npz").exists():
        ours = np.load(folder / "expected.npz")
        return ours["ids"], ours["logits"], ours.get("routing"), None
    golden = np.load(folder / "golden.npz")
    routing = np.sort(golden["route_ids_a"], axis=-1) if "route_ids_a" in golden else None
    return golden["ids_a"], golden["logits_a"], routing, golden["greedy_a"].tolist()


def prompt_of(folder, model):
    """The images of a golden checkpoint's prompt."""
    if model.tower is None:
        return None
    golden = np.load(folder / "golden.npz")
    return Prompt(model, golden, embeddings(model, golden))


def continued(compiled, leaves, cache, first, count, length, tables, prompt):
    """Greedy continuation of `count` cached tokens, from its first token on, by decode steps in the same program."""
    tokens = [first]
    while len(tokens) < length:
        new = np.zeros(64, np.int32)
        new[0], lens = tokens[-1], np.array([count + len(tokens), 0], np.int32)
        images = prompt and prompt.meta([(int(lens[0]) - 1, int(lens[0]))], 64)
        logits, cache, _ = compiled(leaves, cache, new, np.array([0, 1, 1], np.int32), lens, tables, images)
        tokens.append(int(np.asarray(logits)[0].argmax()))
    return tokens


def report(folder, loop, shape):
    config = models.load_config(folder)
    mesh = models.make_mesh(shape or models.derive_mesh_shape(config, 8))
    model = models.load_model(folder, mesh=mesh, layer_loop=loop)
    prompt, expected, experts, greedy = expected_of(folder)
    count = len(prompt)
    ids = np.zeros(64, np.int32)
    ids[:count] = prompt
    cache = models.init_cache(models.cache_spec(config, num_pages=500, page_size=PAGE, dtype="float32", mesh=mesh))
    lens, cu = np.array([count, 0], np.int32), np.array([0, count, count], np.int32)
    groups = len(models.cache_layout(config).groups)
    tables = tuple(np.array([[3, 1, 2, 4], [0, 0, 0, 0]], np.int32) + 4 * group for group in range(groups))
    jitted = jax.jit(step, static_argnums=0, donate_argnums=2)
    prompt = prompt_of(folder, model)
    images = prompt and prompt.meta([(0, count)], 64)
    args = (model.leaves, cache, ids, cu, lens, tables, images)
    compiled = jitted.lower(model.graphdef, *args).compile({"xla_backend_optimization_level": 0})
    memory = compiled.memory_analysis()
    cache_bytes = sum(array.addressable_shards[0].data.nbytes for array in cache.values())
    out = compiled(*args)
    logits = np.asarray(out[0])[:count]
    routing = None if out[2] is None else np.sort(np.asarray(out[2])[:, :count], axis=-1)
    first = int(logits[-1].argmax())
    rest = (model.leaves, out[1], first, count, len(greedy or ()), tables, prompt)
    tokens = continued(compiled, *rest) if greedy else None
    return {
        "mesh": list(mesh.devices.shape),
        "report": list(model.report),
        "layers": config.num_layers,
        "all_reduces": len(re.findall(r"= \S+ all-reduce(?:-start)?\(", compiled.as_text())),
        "all_gathers": len(re.findall(r"= \S+ all-gather(?:-start)?\(", compiled.as_text())),
        "routed": routing is None or bool((routing == experts).all()),
        "error": float(np.abs(logits - expected).max()),
        "greedy": tokens == greedy,
        "aliased": memory.alias_size_in_bytes >= cache_bytes,
        "temporaries_per_cache": memory.temp_size_in_bytes / cache_bytes,
    }


if __name__ == "__main__":
    if sys.argv[1] == "--every":
        print(json.dumps({name: report(Path(name), "scan", None) for name in sys.argv[2:]}))
        sys.exit()
    fixtures = Path(sys.argv[1])
    runs = {
        "qwen2 unroll": ("qwen2_bias", "unroll", None),
        "qwen2 scan": ("qwen2_bias", "scan", None),
        "one kv head": ("llama_one_kv_head", "unroll", None),
        "mistral": ("mistral_window", "scan", None),
        "undividable": ("qwen3_one_layer", "unroll", (1, 4, 2)),
        "experts and width": ("gpt_oss", "scan", None),
        "shared only": ("glm4_moe", "unroll", (8, 1, 1)),
        "latent": ("deepseek_v3", "scan", None),
        "one latent head each": ("deepseek_v3", "scan", (1, 2, 3)),
        "sparse": ("deepseek_v32", "scan", (2, 1, 3)),
        "images in one piece": ("gemma3_images", "scan", None),
    }
    print(json.dumps({name: report(fixtures / folder, loop, shape) for name, (folder, loop, shape) in runs.items()}))
