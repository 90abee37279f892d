"""Checkpoints of a run: parameters, optimizer state and the step, in one npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np


def save(path: Path, step: int, tree: Any) -> None:
    """Writes the leaves of a pytree; a reader never sees half a file."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, step=step, **{f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))})
    partial.replace(path)


def restore(path: Path, like: Any) -> tuple[int, Any]:
    """The step and the pytree of a file that `save` wrote for a tree of the same structure."""
    with np.load(path) as stored:
        leaves, structure = jax.tree.flatten(like)
        restored = [jax.numpy.asarray(stored[f"leaf{i}"]) for i in range(len(leaves))]
        return int(stored["step"]), jax.tree.unflatten(structure, restored)
