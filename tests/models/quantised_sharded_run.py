"""Run by test_quantised_sharding.py in its own process, with 8 virtual CPU devices: prints what is compared."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxserve import models

PAGE = 16


def step(graphdef, leaves, cache, ids, cu, lens, tables):
    meta = models.StepMeta.from_rows(cu, lens, tables, ids.shape[0], PAGE)
    out = models.forward(graphdef, leaves, ids, cache, meta, jnp.arange(ids.shape[0]))
    return out.logits_NV, out.cache


def logits(model, ids):
    count = len(ids)
    padded = np.zeros(64, np.int32)
    padded[:count] = ids
    cache = models.init_cache(
        models.cache_spec(model.config, num_pages=500, page_size=PAGE, dtype="float32", mesh=model.mesh)
    )
    lens, cu = np.array([count, 0], np.int32), np.array([0, count, count], np.int32)
    groups = len(models.cache_layout(model.config).groups)
    tables = tuple(np.array([[3, 1, 2], [0, 0, 0]], np.int32) + 3 * group for group in range(groups))
    jitted = jax.jit(step, static_argnums=0, donate_argnums=2)
    lowered = jitted.lower(model.graphdef, model.leaves, cache, padded, cu, lens, tables)
    out = lowered.compile({"xla_backend_optimization_level": 0})(model.leaves, cache, padded, cu, lens, tables)
    return np.asarray(out[0])[:count]


def report(folder, loop, shape, quantize):
    """Logits and parameters on 8 devices beside those on one."""
    config = models.load_config(folder)
    mesh = models.make_mesh(shape or models.derive_mesh_shape(config, 8))
    one = models.load_model(folder, layer_loop=loop, quantize=quantize)
    all_ = models.load_model(folder, mesh=mesh, layer_loop=loop, quantize=quantize)
    ids = np.load(folder / "expected.npz")["ids"]
    alone, together = logits(one, ids), logits(all_, ids)
    codes = [leaf for leaf in all_.leaves if leaf.dtype.name in ("int8", "uint8")]
    return {
        "mesh": list(mesh.devices.shape),
        "report": list(all_.report),
        "equal_parameters": all(
            np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one.leaves, all_.leaves, strict=True)
        ),
        "error": float(np.abs(together - alone).max()),
        "tokens": bool((together.argmax(-1) == alone.argmax(-1)).all()),
        "share": sum(leaf.addressable_shards[0].data.nbytes for leaf in codes) / sum(leaf.nbytes for leaf in codes),
    }


if __name__ == "__main__":
    fixtures = Path(sys.argv[1])
    runs = {
        "latent": ("deepseek_v3_fp8", "unroll", None, None),
        "experts": ("minimax_m2_fp8", "unroll", (1, 1, 8), None),
        "shared only": ("glm4_moe_fp8_rows", "scan", (8, 1, 1), None),
        "four bits": ("gpt_oss_mxfp4", "unroll", None, None),
        "int8": ("qwen2_bias", "scan", None, "int8"),
        "int8 experts": ("gpt_oss", "scan", None, "int8"),
    }
    print(json.dumps({name: report(fixtures / folder, *rest) for name, (folder, *rest) in runs.items()}))
