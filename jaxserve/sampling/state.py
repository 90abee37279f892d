"""What sampling remembers of a sequence between two steps: the recurrent part, one entry per slot, on the device.

Knobs are not state: they travel with every step (`columns.py`). Memory: counts are 2 bytes per slot and vocabulary
entry (256 slots of 200,000 tokens: 102 MB), everything else together is 2 MB at 256 slots. Counts are only touched for
rows that use penalties.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jaxtyping import Array, Float32, Int32, UInt16

from jaxserve.sampling.params import MAX_LOGIT_BIAS

IN_PROMPT = 0x8000
"""Bit of a count that says the token occurs in the prompt; the low 15 bits count its occurrences in the output."""
MAX_COUNT = 0x7FFF


class SlotState(NamedTuple):
    """Device state of S slots over a vocabulary of V tokens. Donate it to every function that returns it."""

    last_token: Int32[Array, " S"]
    """The token each slot sampled last; the next forward pass reads it."""
    position: Int32[Array, " S"]
    """Index of the output token that the slot samples next; a row at another one counted on drafts that were wrong."""
    mu: Float32[Array, " S"]
    """mirostat's current bound on a token's surprise, in bits."""
    counts: UInt16[Array, "S V"]
    """See `IN_PROMPT`. Valid only in slots whose sequence uses penalties."""
    bias_ids: Int32[Array, "S M"]
    """Biased token ids, M = MAX_LOGIT_BIAS of them, -1 = unused. Valid only in slots whose sequence has a bias."""
    bias_values: Float32[Array, "S M"]


def abstract_state(num_slots: int, vocab_size: int, sharding: Sharding | None = None) -> SlotState:
    """Shapes and types of the state, for ahead-of-time compilation."""

    def leaf(shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    leaves = (
        leaf((num_slots,), jnp.int32),
        leaf((num_slots,), jnp.int32),
        leaf((num_slots,), jnp.float32),
        leaf((num_slots, vocab_size), jnp.uint16),
        leaf((num_slots, MAX_LOGIT_BIAS), jnp.int32),
        leaf((num_slots, MAX_LOGIT_BIAS), jnp.float32),
    )
    return SlotState(*leaves)  # type: ignore[arg-type]


def init_state(num_slots: int, vocab_size: int) -> SlotState:
    """A zeroed state for `num_slots` sequences."""
    return SlotState(*(jnp.zeros(leaf.shape, leaf.dtype) for leaf in abstract_state(num_slots, vocab_size)))
