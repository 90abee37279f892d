"""Where each packed token of a step belongs: its row, its position, its place in the paged cache."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AttentionMeta:
    """One step's ragged batch: row r owns packed tokens cu_q_lens[r] .. cu_q_lens[r + 1] - 1, the rest is padding."""

    cu_q_lens: jax.Array
    """int32 [R + 1]: running sum of the rows' new tokens, from 0."""
    kv_lens: jax.Array
    """int32 [R]: positions of each row once this step's tokens are written; 0 for an unused row."""
    page_table: jax.Array
    """int32 [R, pages per sequence]: page of positions 0, page, 2 page, ... within a layer."""
    rows_T: jax.Array
    """int32 [T]: row of each token (padding: the last row)."""
    positions_T: jax.Array
    """int32 [T]: position of each token in its sequence (padding: 0)."""
    valid_T: jax.Array
    """bool [T]: false for padding."""
    write_pages_T: jax.Array
    """int32 [T]: page within a layer that receives the token's key and value (padding: page 0)."""
    write_offsets_T: jax.Array
    """int32 [T]: its place in that page."""

    @classmethod
    def from_rows(
        cls, cu_q_lens: jax.Array, kv_lens: jax.Array, page_table: jax.Array, num_tokens: int, page_size: int
    ) -> AttentionMeta:
        """Derive the per-token arrays on the device, inside the jitted step. `num_tokens` is T."""
        index = jnp.arange(num_tokens, dtype=jnp.int32)
        rows = jnp.sum(index[:, None] >= cu_q_lens[None, 1:], axis=1, dtype=jnp.int32)
        rows = jnp.minimum(rows, kv_lens.shape[0] - 1)
        valid = index < cu_q_lens[-1]
        starts = kv_lens - (cu_q_lens[1:] - cu_q_lens[:-1])
        positions = jnp.where(valid, (starts - cu_q_lens[:-1])[rows] + index, 0)
        pages = page_table[rows, positions // page_size]
        return cls(
            cu_q_lens=cu_q_lens,
            kv_lens=kv_lens,
            page_table=page_table,
            rows_T=rows,
            positions_T=positions,
            valid_T=valid,
            write_pages_T=jnp.where(valid, pages, 0),
            write_offsets_T=jnp.where(valid, positions, index) % page_size,
        )

    @property
    def q_lens(self) -> jax.Array:
        """int32 [R]: new tokens of each row."""
        return self.cu_q_lens[1:] - self.cu_q_lens[:-1]
