"""Where each packed token of a step belongs: its row, its position, its place in the paged cache.

A `StepMeta` says it for the whole step, with a page table for each page group of the model (`layout.py`); a layer works
with the `AttentionMeta` of its group.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
    """int32 [R, C]: column b % C holds the page of positions b * page ... within a layer: a ring where C is fewer than
    the pages of a sequence, and then only the blocks that the step reads or writes count."""
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
    page_size: int = field(metadata={"static": True})
    """Positions of a page; a step reads at most C * page_size positions of a row."""
    lasts_T: jax.Array | None = None
    """int32 [T]: the last position that a token sees, of those that its row has after the step; None = its own."""

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
        pages = page_table[rows, positions // page_size % page_table.shape[1]]
        return cls(
            cu_q_lens=cu_q_lens,
            kv_lens=kv_lens,
            page_table=page_table,
            rows_T=rows,
            positions_T=positions,
            valid_T=valid,
            write_pages_T=jnp.where(valid, pages, 0),
            write_offsets_T=jnp.where(valid, positions, index) % page_size,
            page_size=page_size,
        )

    @property
    def q_lens(self) -> jax.Array:
        """int32 [R]: new tokens of each row."""
        return self.cu_q_lens[1:] - self.cu_q_lens[:-1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMeta:
    """One step's ragged batch over all page groups."""

    first: AttentionMeta
    """For the first group."""
    page_tables: tuple[jax.Array, ...]
    """One for each page group, in the layout's order, as `AttentionMeta.page_table`."""
    write_pages_T: tuple[jax.Array, ...]
    """The same, as `AttentionMeta.write_pages_T`."""

    @classmethod
    def from_rows(
        cls,
        cu_q_lens: jax.Array,
        kv_lens: jax.Array,
        page_tables: tuple[jax.Array, ...],
        num_tokens: int,
        page_size: int,
    ) -> StepMeta:
        """Derive the per-token arrays on the device, inside the jitted step. `num_tokens` is T."""
        groups = [AttentionMeta.from_rows(cu_q_lens, kv_lens, table, num_tokens, page_size) for table in page_tables]
        return cls(groups[0], tuple(page_tables), tuple(group.write_pages_T for group in groups))

    def seeing(self, lasts_T: jax.Array) -> StepMeta:
        """The same where a token sees up to this position if that is behind its own."""
        first = replace(self.first, lasts_T=jnp.maximum(self.first.positions_T, lasts_T))
        return replace(self, first=first)

    def of_group(self, group: int) -> AttentionMeta:
        """The batch as the layers of one page group see it."""
        return replace(self.first, page_table=self.page_tables[group], write_pages_T=self.write_pages_T[group])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ImageMeta:
    """What images bring into a step of a model that reads them."""

    pool: jax.Array
    """[E, (1 + taps) * D]: embeddings of images, each followed by what the first layers add; row 0 has no meaning."""
    rows_T: jax.Array
    """int32 [T]: the row that takes the place of a token's embedding; 0 = none does."""
    rotary_AT: jax.Array | None = None
    """int32 [axes, T]: where tokens are on the axes of the rotation; None = at their positions."""
    lasts_T: jax.Array | None = None
    """int32 [T]: position of the last token of a token's image, 0 for text; None = images are read like text."""
