"""Fixtures of model families on the device, against the logits that a float64 reference computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.program import PAGE_SIZE, Bucket, random_tables
from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models.kernels.choice import choose_backends
from jaxserve.models.kernels.target import Target

TOLERANCES = {"float32": 2e-4, "bfloat16": 6e-2}
"""Relative error of the logits that is still one of rounding."""


def check_families(
    directory: Path, names: Sequence[str], attention: Sequence[str], matmul: Sequence[str]
) -> dict[str, Any]:
    """Relative errors by family, type and pair of backends, prompt at once and token by token."""
    found: dict[str, Any] = {}
    for name in names:
        for dtype in TOLERANCES:
            for pair in zip(attention, matmul, strict=True):
                try:
                    errors = _errors(directory / name, dtype, *pair)
                except ModelLoadError as refusal:
                    found[f"{name} {dtype} {pair[0]}"] = {"refused": str(refusal)}
                    continue
                ok = max(errors.values()) < TOLERANCES[dtype]
                found[f"{name} {dtype} {pair[0]}"] = {**errors, "ok": bool(ok)}
    return found


def _errors(directory: Path, dtype: str, attention: str, matmul: str) -> dict[str, float]:
    config = models.load_config(directory)
    mesh = models.make_mesh((1, 1, 1))
    backends = choose_backends(attention, matmul, Target.of(mesh.devices.flat[0]), config.layers)
    model = models.load_model(directory, mesh=mesh, dtype=dtype, layer_loop="unroll", backends=backends)
    with np.load(directory / "expected.npz") as expected:
        ids, wanted = expected["ids"].astype(np.int32), expected["logits"]
    once, steps = (_logits(model, ids, chunk) for chunk in (len(ids), 1))
    return {"at_once": _relative(once, wanted), "by_token": _relative(steps, wanted)}


def _relative(out: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(out - wanted) / np.linalg.norm(wanted))


def _logits(model: models.LoadedModel, ids: np.ndarray, chunk: int) -> np.ndarray:
    """Logits of all positions, the prompt fed in chunks, in a bucket that takes tiles or single queries."""
    bucket = Bucket(tokens=128 if chunk > 1 else 8, rows=2, context=128)
    tables, pages = random_tables(model.config, bucket)
    cache = models.init_cache(
        models.cache_spec(
            model.config,
            num_pages=pages,
            page_size=PAGE_SIZE,
            dtype=model.dtype,
            mesh=model.mesh,
            backends=model.backends,
        )
    )
    step, out = jax.jit(partial(_step, model.graphdef), donate_argnums=1), []
    with jax.set_mesh(model.mesh):
        for start in range(0, len(ids), chunk):
            new = ids[start : start + chunk]
            padded = np.pad(new, (0, bucket.tokens - len(new)))
            cu, lens = np.array([0, len(new), len(new)], np.int32), np.array([start + len(new), 0], np.int32)
            cache, logits = step(model.leaves, cache, padded, cu, lens, tables)
            out.append(np.asarray(logits)[: len(new)])
    return np.concatenate(out)


def _step(graphdef: Any, leaves: Any, cache: Any, ids: Any, cu: Any, lens: Any, tables: Any) -> Any:
    meta = models.StepMeta.from_rows(cu, lens, tables, ids.shape[0], PAGE_SIZE)
    out = models.forward(graphdef, leaves, ids, cache, meta, jnp.arange(ids.shape[0]))
    return out.cache, out.logits_NV
