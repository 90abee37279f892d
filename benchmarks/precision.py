"""`python -m benchmarks.precision DIRECTORY...`: how far logits in bfloat16 are from those in float32, model by model.

Takes directories of tiny checkpoints, each with the token ids of a prompt in `expected.npz` or `golden.npz`, runs the
prompt in one step in both types and prints a table in Markdown. Weights stored quantised stay quantised in both.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxserve import models
from jaxserve.errors import ModelLoadError

PAGE = 16
COLUMNS = ("model", "model_type", "error", "median token", "same greedy token", "same experts")


def step(
    graphdef: models.GraphDef[Any], leaves: list[jax.Array], ids: jax.Array, cache: models.Cache, pages: Any
) -> Any:
    """Logits [T, V] and routing of one sequence that fills the step."""
    count = ids.shape[0]
    rows = jnp.array([0, count], jnp.int32)
    meta = models.StepMeta.from_rows(rows, rows[1:], pages, count, PAGE)
    out = models.forward(graphdef, leaves, ids, cache, meta, jnp.arange(ids.shape[0]))
    return out.logits_NV, out.routing


def run(directory: Path, ids: NDArray[np.int32], dtype: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Logits [T, V], and the experts of each MoE layer and token, ascending."""
    model = models.load_model(directory, dtype=dtype, layer_loop="scan")
    per_group = -(-len(ids) // PAGE)
    groups = len(models.cache_layout(model.config).windows)
    pages = [np.arange(per_group, dtype=np.int32)[None] + 1 + group * per_group for group in range(groups)]
    cache = models.init_cache(
        models.cache_spec(model.config, num_pages=groups * per_group + 1, page_size=PAGE, dtype=dtype, mesh=model.mesh)
    )
    logits, routing = jax.jit(partial(step, model.graphdef))(model.leaves, ids, cache, tuple(pages))
    return np.asarray(logits), None if routing is None else np.sort(np.asarray(routing), axis=-1)


def compare(directory: Path) -> tuple[str, ...]:
    """One row of the table."""
    model_type = models.load_config(directory).model_type
    prompt = next(iter(directory.glob("expected.npz")), directory / "golden.npz")
    with np.load(prompt) as arrays:
        ids = arrays["ids" if "ids" in arrays else "ids_a"].astype(np.int32)
    (exact, experts), (rounded, experts_rounded) = (run(directory, ids, dtype) for dtype in ("float32", "bfloat16"))
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    token = np.median(np.linalg.norm(rounded - exact, axis=-1) / np.linalg.norm(exact, axis=-1))
    first = np.mean(rounded.argmax(-1) == exact.argmax(-1))
    same = "" if experts is None else f"{np.mean(experts == experts_rounded):.1%}"
    return directory.name, model_type, f"{error:.2%}", f"{token:.2%}", f"{first:.0%}", same


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.precision", description=__doc__)
    parser.add_argument("directories", nargs="+", type=Path, help="of model directories")
    options = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for directory in itertools.chain.from_iterable(sorted(parent.iterdir()) for parent in options.directories):
        if (directory / "config.json").is_file():
            try:
                print("| " + " | ".join(compare(directory)) + " |", flush=True)
            except ModelLoadError as error:
                print(f"left out: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
