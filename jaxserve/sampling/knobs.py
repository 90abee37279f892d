"""Knobs that edit logits, one pure function each. Rows where a knob is off come back bit for bit as they were."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxserve.sampling.state import IN_PROMPT, MAX_COUNT


def apply_bias(logits_RV: jax.Array, ids_RN: jax.Array, values_RN: jax.Array, on_R: jax.Array) -> jax.Array:
    """logit_bias: adds each value to its token's logit (OpenAI API reference). -inf bans; id -1 is an unused entry."""
    R, V = logits_RV.shape
    ids_RN = jnp.where(on_R[:, None] & (ids_RN >= 0), ids_RN, V)  # V is out of bounds: dropped
    return logits_RV.at[jnp.arange(R)[:, None], ids_RN].add(values_RN, mode="drop")


def apply_repetition(logits_RV: jax.Array, counts_RV: jax.Array, penalty_R: jax.Array, on_R: jax.Array) -> jax.Array:
    """repetition_penalty (Keskar et al. 2019, CTRL, eq. 2): tokens of prompt or output; x / r if x > 0, else x * r."""
    r = penalty_R[:, None]
    penalized = jnp.where(logits_RV > 0, logits_RV / r, logits_RV * r)
    return jnp.where(on_R[:, None] & (counts_RV != 0), penalized, logits_RV)


def apply_frequency(
    logits_RV: jax.Array, counts_RV: jax.Array, frequency_R: jax.Array, presence_R: jax.Array, on_R: jax.Array
) -> jax.Array:
    """frequency_penalty and presence_penalty: x - count * frequency - [count > 0] * presence over output tokens.

    OpenAI, "Advanced usage: frequency and presence penalties".
    """
    count = (counts_RV & MAX_COUNT).astype(jnp.float32)
    penalty = count * frequency_R[:, None] + jnp.where(count > 0, presence_R[:, None], 0.0)
    return jnp.where(on_R[:, None] & (count > 0), logits_RV - penalty, logits_RV)


def apply_grammar(logits_RV: jax.Array, bitmask_RW: jax.Array, on_R: jax.Array) -> jax.Array:
    """Bans every token i whose bit i % 32 of word i // 32 is 0, in rows that follow a grammar."""
    R, V = logits_RV.shape
    words = bitmask_RW.astype(jnp.uint32)[:, :, None]
    allowed = (words >> jnp.arange(32, dtype=jnp.uint32)) & 1 != 0
    allowed_RV = allowed.reshape(R, -1)[:, :V]
    return jnp.where(allowed_RV | ~on_R[:, None], logits_RV, -jnp.inf)


def count_token(counts_SV: jax.Array, slot_N: jax.Array, token_N: jax.Array, on_N: jax.Array) -> jax.Array:
    """Output counts after N more tokens, of which several may be of one slot, equal or not; touches N entries only.

    Counts stop at 32,767.
    """
    slot = jnp.where(on_N, slot_N, counts_SV.shape[0])  # out of bounds: dropped
    old = counts_SV.at[slot, token_N].get(mode="fill", fill_value=0)
    added = counts_SV.at[slot, token_N].add(jnp.uint16(1), mode="drop")
    # What the wrapped sum grew by is how often this step drew the token: equal tokens of a slot write the same entry.
    times = added.at[slot, token_N].get(mode="fill", fill_value=0) - old
    count = jnp.minimum((old & MAX_COUNT).astype(jnp.uint32) + times, MAX_COUNT).astype(jnp.uint16)
    return added.at[slot, token_N].set((old & jnp.uint16(IN_PROMPT)) | count, mode="drop")


def count_history(counts_V: jax.Array, tokens_N: jax.Array, in_prompt: jax.Array) -> jax.Array:
    """One slot's counts with tokens of its history added; -1 = padding, which is dropped."""
    V = counts_V.shape[0]
    tokens = jnp.where(tokens_N >= 0, tokens_N, V)  # V is out of bounds: dropped
    added = jnp.zeros(V, jnp.uint32).at[tokens].add(1, mode="drop")
    seen = jnp.where(added > 0, counts_V | jnp.uint16(IN_PROMPT), counts_V)
    count = jnp.minimum((counts_V & MAX_COUNT) + added, MAX_COUNT).astype(jnp.uint16)
    return jnp.where(in_prompt, seen, (counts_V & jnp.uint16(IN_PROMPT)) | count)
