"""Work lists that are built inside a program: of a static size, with a number of entries that only the device knows."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def spread(counts_X: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Entries i = 0 .. size - 1 of a work list in which x has `counts_X[x]` entries side by side.

    Returns:
        The x of each entry (the last one beyond the valid), its number among the entries of x, and the number of
        entries before each x, int32 [X + 1]: the last is the number of valid entries.
    """
    ends_X = jnp.cumsum(counts_X, dtype=jnp.int32)
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), ends_X])
    index = jnp.arange(size, dtype=jnp.int32)
    x = jnp.sum(index[:, None] >= ends_X[None], axis=1, dtype=jnp.int32)
    x = jnp.minimum(x, counts_X.shape[0] - 1)
    return x, index - starts[x], starts
