"""The interface every attention backend implements, and the table of backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import jax

from jaxserve.models.metadata import AttentionMeta

BACKENDS: dict[str, str] = {"blocked": "jaxserve.models.kernels.blocked"}
"""Name -> module that defines `write_kv` and `attend`."""


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
    def attend(self) -> Attend:
        """See `Attend`."""
        function: Attend = import_module(BACKENDS[self.name]).attend
        return function
