"""The interface every attention backend implements, and the table of backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import jax

from jaxserve.models.kernels.sparse import IndexQueries
from jaxserve.models.metadata import AttentionMeta

BACKENDS: dict[str, str] = {"blocked": "jaxserve.models.kernels.blocked"}
"""Name -> module that defines `write_kv`, `write_rows`, `attend`, `attend_latent` and `attend_sparse`."""


class Attend(Protocol):
    """Attention of a step's queries over the paged cache, called inside `shard_map` (N and K are one shard's heads)."""

    def __call__(
        self,
        q_TNH: jax.Array,
        kv: jax.Array,
        meta: AttentionMeta,
        first_page: jax.Array | int,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks_N: jax.Array | None,
    ) -> jax.Array:
        """Softmax attention of each token over positions 0 .. its own of its row.

        Args:
            q_TNH: queries, after the rotation.
            kv: [S*P, page, 2K, H], K and V interleaved, this step's keys and values already written.
            meta: the ragged batch.
            first_page: the layer's first page in `kv`.
            scale: factor on the scores.
            window: positions visible (including the query's own), None = all.
            softcap: bound of the scores (tanh), None = none.
            sinks_N: per head a logit that joins the softmax without a value, None = none.

        Returns:
            [T, N, H] in the dtype of q; zero for padding tokens.
        """
        ...


class AttendLatent(Protocol):
    """Attention over cached latents (DeepSeek-V2, 2024), called inside `shard_map` (N are one shard's heads)."""

    def __call__(
        self,
        q_TNC: jax.Array,
        latent: jax.Array,
        meta: AttentionMeta,
        first_page: jax.Array | int,
        *,
        scale: float,
        value_dim: int,
    ) -> jax.Array:
        """Softmax attention of each token over positions 0 .. its own of its row; all heads read the same rows.

        Args:
            q_TNC: queries brought into the latent space, with their rotated part behind.
            latent: [S*P, page, C], this step's rows already written.
            meta: the ragged batch.
            first_page: the layer's first page in `latent`.
            scale: factor on the scores.
            value_dim: leading dimensions V of a row that are its value.

        Returns:
            [T, N, V] in the dtype of q; zero for padding tokens.
        """
        ...


class AttendSparse(Protocol):
    """Attention over the cached latents that an indexer selects, called inside `shard_map`."""

    def __call__(
        self,
        q_TNC: jax.Array,
        latent: jax.Array,
        index: jax.Array,
        wanted: IndexQueries,
        meta: AttentionMeta,
        first_page: jax.Array | int,
        *,
        scale: float,
        value_dim: int,
        top_k: int,
        axes: tuple[str, ...],
    ) -> jax.Array:
        """Like `AttendLatent`, over the `top_k` positions with the highest index scores of each token.

        Args beyond those of `AttendLatent`:
            index: [S*P, page, H'], index keys, this step's already written.
            wanted: the tokens' index queries, not split over the mesh.
            top_k: positions that a token sees; all of them where it has no more. Of equal scores the lower wins.
            axes: mesh axes of more than one device, over which the selection may be shared out.
        """
        ...


WriteRows = Callable[[jax.Array, jax.Array, AttentionMeta, "jax.Array | int"], jax.Array]
"""(array [S*P, page, ...], rows [T, ...], meta, first page) -> the array with every token's row in its place."""
WriteKV = Callable[[jax.Array, jax.Array, jax.Array, AttentionMeta, "jax.Array | int"], jax.Array]
"""(kv, k_TKH, v_TKH, meta, first page) -> kv with every token's key and value in its place."""


@dataclass(frozen=True)
class AttentionBackend:
    """A backend by name; its functions are found on use, so that the name is all that a compiled program depends on."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in BACKENDS:
            raise ValueError(f"attention backend {self.name!r} is unknown (known: {', '.join(BACKENDS)})")

    @property
    def write_kv(self) -> WriteKV:
        """See `WriteKV`."""
        function: WriteKV = import_module(BACKENDS[self.name]).write_kv
        return function

    @property
    def write_rows(self) -> WriteRows:
        """See `WriteRows`."""
        function: WriteRows = import_module(BACKENDS[self.name]).write_rows
        return function

    @property
    def attend_latent(self) -> AttendLatent:
        """See `AttendLatent`."""
        function: AttendLatent = import_module(BACKENDS[self.name]).attend_latent
        return function

    @property
    def attend_sparse(self) -> AttendSparse:
        """See `AttendSparse`."""
        function: AttendSparse = import_module(BACKENDS[self.name]).attend_sparse
        return function

    @property
    def attend(self) -> Attend:
        """See `Attend`."""
        function: Attend = import_module(BACKENDS[self.name]).attend
        return function
