"""Assignments of tokens to experts, sorted by expert and cut into blocks of one expert each."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxserve.models.kernels.work_list import spread


class Blocks(NamedTuple):
    """T * A assignments in at most W blocks of R rows, each of one expert."""

    experts_W: jax.Array
    """int32."""
    valid: jax.Array
    """int32 [1]: valid blocks."""
    tokens_WR: jax.Array
    """int32: token of each row; any where a block has rows to spare. [1, R] where all blocks have the same."""
    block_TA: jax.Array
    """int32: block of each assignment."""
    place_TA: jax.Array
    """int32: its row there."""
    valid_TA: jax.Array
    """Whether the expert is one of those at hand; block and place are any where it is not."""

    def padded(self, multiple: int) -> Blocks:
        """The same with spare blocks behind, W a multiple."""
        spare = -self.experts_W.shape[0] % multiple
        return self._replace(
            experts_W=jnp.pad(self.experts_W, (0, spare)), tokens_WR=jnp.pad(self.tokens_WR, ((0, spare), (0, 0)))
        )

    def part(self, first: jax.Array, count: int) -> Blocks:
        """Blocks first .. first + count - 1, counted from there; assignments elsewhere are not valid."""
        number_TA = self.block_TA - first
        return Blocks(
            experts_W=lax.dynamic_slice_in_dim(self.experts_W, first, count),
            valid=jnp.clip(self.valid - first, 0, count),
            tokens_WR=lax.dynamic_slice_in_dim(self.tokens_WR, first, count),
            block_TA=jnp.clip(number_TA, 0, count - 1),
            place_TA=self.place_TA,
            valid_TA=self.valid_TA & (number_TA >= 0) & (number_TA < count),
        )


def cut_into_blocks(experts_TA: jax.Array, count: int, rows: int) -> Blocks:
    """Sort assignments by expert and cut them into blocks of `rows`; experts outside [0, count) are left out."""
    tokens, choices = experts_TA.shape
    total = tokens * choices
    valid_TA = (experts_TA >= 0) & (experts_TA < count)
    flat = jnp.where(valid_TA, experts_TA, count).reshape(-1)
    order = jnp.argsort(flat, stable=True)
    starts = jnp.sum(flat[:, None] < jnp.arange(count + 1), axis=0, dtype=jnp.int32)
    blocks_E = (starts[1:] - starts[:-1] + rows - 1) // rows
    experts_W, number_W, block_starts = spread(blocks_E, total // rows + min(count, total))
    places_WR = (starts[experts_W] + number_W * rows)[:, None] + jnp.arange(rows)
    rank = jnp.zeros(total, jnp.int32).at[order].set(jnp.arange(total, dtype=jnp.int32))
    nearest = jnp.minimum(flat, count - 1)
    within = rank - starts[nearest]
    return Blocks(
        experts_W=experts_W,
        valid=block_starts[-1:],
        tokens_WR=order[jnp.minimum(places_WR, total - 1)] // choices,
        block_TA=jnp.minimum(block_starts[nearest] + within // rows, experts_W.shape[0] - 1).reshape(tokens, choices),
        place_TA=(within % rows).reshape(tokens, choices),
        valid_TA=valid_TA,
    )


def blocks_of_all_tokens(experts_TA: jax.Array, count: int) -> Blocks:
    """One block for each expert that any token chose, all T tokens its rows: nothing is sorted or gathered."""
    tokens = experts_TA.shape[0]
    valid_TA = (experts_TA >= 0) & (experts_TA < count)
    chosen_E = jnp.any(jnp.arange(count)[:, None] == experts_TA.reshape(-1), axis=1)
    experts_W, _, starts = spread(chosen_E.astype(jnp.int32), min(count, experts_TA.size))
    return Blocks(
        experts_W=experts_W,
        valid=starts[-1:],
        tokens_WR=jnp.arange(tokens, dtype=jnp.int32)[None],
        block_TA=jnp.minimum(starts[jnp.clip(experts_TA, 0, count - 1)], experts_W.shape[0] - 1),
        place_TA=jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[:, None], experts_TA.shape),
        valid_TA=valid_TA,
    )
