"""The seam for attention kernels: what a backend keeps in the cache, what it prepares of a step, and how it attends.

A step calls `prepare` once for each page group, before the first layer, and hands the result to every layer of the
group inside a `LayerBatch`: so a work list is made once, whether layers are scanned or unrolled. Each layer then makes
one call that writes the new tokens into the cache and attends, inside `shard_map`: arrays are one device's parts.
docs/add-a-kernel.md is the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax

from jaxserve.models.config import AttentionSpec, LatentSpec
from jaxserve.models.kernels.target import Target
from jaxserve.models.metadata import AttentionMeta

Arrays = dict[str, jax.Array]
"""The arrays of the cache that a layer uses, by name, each [S*P, ...]: page p of the layer is row first_page + p."""


@dataclass(frozen=True)
class PageFormat:
    """What the engine asks of a page."""

    size: int
    """Positions."""
    dtype: str
    """Of keys and values, unless the backend knows better."""
    platform: str
    """Of the devices that hold it: cpu, gpu or tpu."""


@dataclass(frozen=True)
class CacheArray:
    """One page of an array of the cache."""

    shape: tuple[int, ...]
    """Of one page, its positions included; over all devices."""
    axes: tuple[str | None, ...]
    """Logical axes of `shape`, as in `sharding.LOGICAL_AXES`; "kv_heads" splits evenly over key/value heads."""
    dtype: str


@dataclass(frozen=True)
class AttentionShape:
    """Static shape of the attention of some layers, as one device computes it."""

    heads: int
    """N."""
    kv_heads: int
    """K; 1 for latents, which all heads share."""
    head_dim: int
    """H: of queries and keys."""
    value_dim: int
    """V: H, or the leading dimensions of a latent row that are its value."""
    window: int | None = None
    """Positions that a query sees, its own included; None = all before it."""
    top_k: int | None = None
    """Positions that an indexer selects for each query; None = no indexer."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerBatch:
    """A step's batch as the kernels of one layer see it."""

    meta: AttentionMeta
    """Rows, positions and page table of the layer's page group."""
    work: Any
    """What the backend prepared for the page group."""
    first_page: jax.Array | int
    """int32: row of the layer's page 0 in the arrays of the cache."""


class IndexQueries(NamedTuple):
    """What an indexer asks for each token."""

    q_TIH: jax.Array
    """I index heads."""
    weights_TI: jax.Array
    """float32: weight of each head's score."""


class Selection(NamedTuple):
    """An indexer's part in latent attention (DeepSeek-V3.2, 2025); not split over the mesh."""

    queries: IndexQueries
    k_TH: jax.Array
    """Index keys of the step's tokens, to be cached."""


class AttentionBackend(Protocol):
    """Attention over a paged cache. Instances are frozen and equal when alike: compiled programs depend on them."""

    @property
    def name(self) -> str:
        """As in `choice.ATTENTION`."""
        ...

    @property
    def page_sizes(self) -> tuple[int, ...]:
        """Positions per page that it can work with, ascending."""
        ...

    def refusal(self, spec: AttentionSpec | LatentSpec, target: Target) -> str | None:
        """Why it can't serve such layers on such devices, the end of a sentence ("has no soft cap"); None = it can."""
        ...

    def cache_arrays(self, spec: AttentionSpec | LatentSpec, page: PageFormat) -> dict[str, CacheArray]:
        """The arrays that such a layer uses, by name; layers share an array by naming it alike."""
        ...

    def prepare(self, meta: AttentionMeta, shape: AttentionShape) -> Any:
        """Whatever the layers of a page group share of a step: a pytree of arrays, the same on every device.

        Called outside `shard_map`. Sizes must be static: T, R and the C pages of a row's table bound every list.
        """
        ...

    def write_and_attend(
        self,
        q_TNH: jax.Array,
        k_TKH: jax.Array,
        v_TKH: jax.Array,
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks_N: jax.Array | None,
    ) -> tuple[jax.Array, Arrays]:
        """Write the tokens' keys and values, then softmax attention of each token over positions 0 .. its own.

        Of layers with `whole_images`, up to `batch.meta.lasts_T` where a step has it: the ends of images.

        Args:
            q_TNH: queries, after the rotation.
            k_TKH: keys, after the rotation.
            v_TKH: values.
            cache: the layer's arrays; pages may hold anything, NaN too, where no position of their row is.
            batch: the ragged batch.
            scale: factor on the scores.
            window: positions visible (including the query's own), None = all.
            softcap: bound of the scores (tanh), None = none.
            sinks_N: per head a logit that joins the softmax without a value, None = none.

        Returns:
            [T, N, H] in the dtype of q, zero for padding tokens; and the arrays, updated in place where donated.
            Padding tokens are written to the layer's page 0.
        """
        ...

    def write_and_attend_latent(
        self,
        q_TNC: jax.Array,
        rows_TC: jax.Array,
        selection: Selection | None,
        cache: Mapping[str, jax.Array],
        batch: LayerBatch,
        *,
        scale: float,
        value_dim: int,
        top_k: int | None,
        axes: tuple[str, ...],
    ) -> tuple[jax.Array, Arrays]:
        """The same over cached latents, which all heads share (DeepSeek-V2, 2024), or the best positions of them.

        Args:
            q_TNC: queries brought into the latent space, with their rotated part behind.
            rows_TC: latents with their rotated keys, to be cached.
            selection: queries and keys of the indexer; None = a token sees all positions.
            cache: the layer's arrays, whole on every device.
            batch: the ragged batch.
            scale: factor on the scores.
            value_dim: leading dimensions V of a row that are its value.
            top_k: with `selection`: positions that a token sees, all of them where it has no more. Of equal scores the
                lower position wins.
            axes: mesh axes of more than one device, over which the selection may be shared out.

        Returns:
            [T, N, V] in the dtype of q, zero for padding tokens; and the arrays.
        """
        ...
