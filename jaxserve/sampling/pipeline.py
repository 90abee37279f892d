"""Logits to tokens: the ordered pipeline, one compiled program whatever the rows ask for.

Order: a rule of one's own (`rule.py`), logit_bias, repetition penalty, frequency and presence penalty, grammar mask,
temperature, top_k, typical_p, top_p, min_p, draw; mirostat replaces the truncations. Every knob touches only its own
row and is the exact identity at its neutral value. What no row of a batch asks for is not computed (`lax.cond` on the
batch), and no row's result depends on what the others ask for (see `masses.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Integer

from jaxserve.sampling import chunks, drafts, draw, knobs, masses, records
from jaxserve.sampling.columns import RowInputs
from jaxserve.sampling.draw import Drawn, Tempered
from jaxserve.sampling.logprobs import Scores, score
from jaxserve.sampling.masses import Mass
from jaxserve.sampling.packing import BIAS, HISTORY, MAX_TOP_LOGPROBS, OUT, unpack_rows
from jaxserve.sampling.rule import Rule, apply
from jaxserve.sampling.state import SlotState

LIST = 128
"""K: most likely tokens that truncations look at first; at least the largest top_k."""


class Choice(NamedTuple):
    """What N samples chose."""

    token: Int32[Array, " N"]
    failed: Bool[Array, " N"]
    sampling_logprob: Float32[Array, " N"]
    mu: Float32[Array, " N"]


def sample(
    state: SlotState,
    logits_NV: Float32[Array, "N V"],
    samples_NC: Int32[Array, "N C"],
    bitmask_NW: Integer[Array, "N W"],
    rule: Rule | None = None,
) -> tuple[SlotState, Int32[Array, "N O"]]:
    """One token per active sample.

    A slot may have several samples, each drawn as if the drafts before it were right (`drafts.py`). Afterwards its
    state is that of the samples that count: up to the first that drew something else than its draft. A row that doesn't
    go on where its slot is was launched before it was known that a draft was wrong: its samples are not active.

    Args:
        state: slot state; donate it.
        logits_NV: float32 model logits; rows that are not active may hold anything.
        samples_NC: int32 [N, NUM_COLUMNS], see `columns.py`.
        bitmask_NW: int32 or uint32 [N, ceil(V / 32)]: bit i % 32 of word i // 32 allows token i; only read for rows
            packed with `grammar`.
        rule: static; makes other logits of the model's, before everything else. Log-probabilities stay the model's.

    Returns:
        The state after the step, and int32 [N, OUT_COLUMNS] for `packing.unpack_out`. A row without a token to draw
        (all are banned, or NaN) is marked as failed.
    """
    rows = unpack_rows(samples_NC)
    expected = state.position[rows.slot] == rows.position - rows.offset
    rows = rows._replace(active=rows.active & (rows.fresh | expected))
    mu = jnp.where(rows.fresh, rows.mu, state.mu[rows.slot])
    edited = rows.active & (rows.biased | rows.penalized | rows.constrained)
    ruled_NV = logits_NV if rule is None else _ruled(rule, state, logits_NV, rows)

    def choose() -> Choice:
        # Where nothing is edited this copies the logits, which costs less than it did to compile `_choose` twice.
        x_NV = lax.cond(jnp.any(edited), lambda: _edit(state, ruled_NV, rows, bitmask_NW), lambda: ruled_NV)
        return _choose(x_NV, rows, mu)

    choice = lax.cond(jnp.any(edited | rows.draws), choose, lambda: _choose_greedily(ruled_NV, mu))
    token = jnp.where(choice.failed, 0, choice.token)
    choice = choice._replace(token=token, failed=choice.failed & rows.active)
    with jax.named_scope("logprobs"):
        scores = _scores(logits_NV, rows, token)
    return _advance(state, rows, choice), _pack(choice, scores)


def _ruled(rule: Rule, state: SlotState, logits_NV: jax.Array, rows: RowInputs) -> jax.Array:
    with jax.named_scope("rule"):
        return apply(rule, logits_NV, rows, drafts.count_along(state.counts[rows.slot], rows))


def _scores(logits_NV: jax.Array, rows: RowInputs, token: jax.Array) -> Scores:
    N = token.shape[0]
    nothing = Scores(
        jnp.full(N, jnp.nan, jnp.float32),
        jnp.full((N, MAX_TOP_LOGPROBS), -1, jnp.int32),
        jnp.full((N, MAX_TOP_LOGPROBS), jnp.nan, jnp.float32),
    )
    wanted = jnp.any(rows.active & rows.wants_logprobs)
    scores: Scores = lax.cond(wanted, lambda: score(logits_NV, token), lambda: nothing)
    return scores


def _edit(state: SlotState, x_NV: jax.Array, rows: RowInputs, bitmask_NW: jax.Array) -> jax.Array:
    """The knobs that edit logits, each skipped when no row uses it."""

    def penalize(x: jax.Array) -> jax.Array:
        counts = drafts.count_along(state.counts[rows.slot], rows)
        x = knobs.apply_repetition(x, counts, rows.repetition, rows.penalized)
        return knobs.apply_frequency(x, counts, rows.frequency, rows.presence, rows.penalized)

    def bias(x: jax.Array) -> jax.Array:
        return knobs.apply_bias(x, state.bias_ids[rows.slot], state.bias_values[rows.slot], rows.biased)

    def constrain(x: jax.Array) -> jax.Array:
        return knobs.apply_grammar(x, bitmask_NW, rows.constrained)

    for scope, edit, on in (
        ("logit_bias", bias, rows.biased),
        ("penalties", penalize, rows.penalized),
        ("grammar", constrain, rows.constrained),
    ):
        with jax.named_scope(scope):
            x_NV = lax.cond(jnp.any(rows.active & on), edit, lambda x: x, x_NV)
    return x_NV


def _choose_greedily(x_NV: jax.Array, mu: jax.Array) -> Choice:
    """The most likely token of every row."""
    with jax.named_scope("argmax"):
        x = chunks.to_chunks(x_NV)
        chunk_max = chunks.chunk_maxima(x)
        token = chunks.argmax(x, chunk_max)
    return Choice(token, _hopeless(chunk_max.max(-1)), jnp.zeros_like(mu), mu)


def _hopeless(maximum: jax.Array) -> jax.Array:
    """Rows without a token to draw: all are banned, or NaN."""
    return maximum == -jnp.inf


def _choose(x_NV: jax.Array, rows: RowInputs, mu: jax.Array) -> Choice:
    """Temperature, truncations and the draw, over edited logits."""
    x = chunks.to_chunks(x_NV)
    chunk_max = chunks.chunk_maxima(x)
    tempered = Tempered(x, chunk_max.max(-1), rows.inverse_temperature)
    with jax.named_scope("mass"):
        chunk_mass = _masses(tempered, rows.draws & (rows.top_k == 0))
        total = masses.add_up(chunk_mass)

    def step(d: jax.Array) -> jax.Array:
        """What a token of this d takes off mirostat's bound."""
        surprise = (draw.log_mass(total, tempered.bits) - d) / draw.LN2
        lower = _rounded(rows.learning_rate * (surprise - rows.tau), rows.offset)
        return jnp.where(rows.mirostat & rows.draws, lower, 0.0)

    with jax.named_scope("drafts"):
        mu = drafts.mu_along(rows, mu, lambda token: step(draw.d_of(tempered, token)))
    with jax.named_scope("draw"):
        drawn = _draw(tempered, chunk_max, chunk_mass, rows, mu)
    with jax.named_scope("argmax"):
        greedy = chunks.argmax(x, chunk_max)
    logprob = drawn.d - draw.log_mass(drawn.mass, tempered.bits)
    return Choice(
        jnp.where(rows.draws, drawn.token, greedy),
        _hopeless(tempered.maximum),
        jnp.where(rows.draws, logprob, 0.0),
        mu - step(drawn.d),
    )


def _rounded(product: jax.Array, offset: jax.Array) -> jax.Array:
    """The product as a float32 of its own: never one multiply-add with what is done to it next.

    Compilers fuse the two where they like, by row count and place, and a choice between them doesn't stop that (seen on
    CPU with 2 rows beside 64). They can't see that no offset is negative.
    """
    bits = lax.bitcast_convert_type(product, jnp.int32) ^ (offset < 0).astype(jnp.int32)
    return lax.bitcast_convert_type(bits, jnp.float32)


def _masses(tempered: Tempered, wanted: jax.Array) -> Mass:
    """Mass of every chunk [N, n]; zeros when no row wants it."""
    none = jnp.zeros(tempered.x.shape[:2], jnp.uint32)
    mass: Mass = lax.cond(jnp.any(wanted), lambda: masses.total(tempered.weigh(tempered.x)), lambda: Mass(none, none))
    return mass


def _draw(tempered: Tempered, chunk_max: jax.Array, chunk_mass: Mass, rows: RowInputs, mu: jax.Array) -> Drawn:
    """Rows that truncate draw from a list of their likeliest tokens; where that is too short, from the vocabulary."""
    total = masses.add_up(chunk_mass)
    floor = draw.mirostat_floor(rows, mu, total, tempered.bits)
    word = draw.random_words(rows)
    truncates = rows.draws & rows.truncates

    def truncated() -> Drawn:
        x, ids = chunks.top_k(tempered.x, chunk_max, min(LIST, tempered.size))
        listed, complete = draw.draw_listed(tempered, x, ids, rows, total, floor, word)
        short = truncates & ~complete
        return draw.redraw_truncated(_merge(truncates, listed, whole), tempered, rows, short, total, floor, word)

    whole: Drawn = lax.cond(
        jnp.any(rows.draws & ~truncates),
        lambda: draw.draw_untruncated(tempered, chunk_mass, word),
        lambda: draw.nothing(total),
    )
    drawn: Drawn = lax.cond(jnp.any(truncates), truncated, lambda: whole)
    return drawn


def _merge(on: jax.Array, a: Drawn, b: Drawn) -> Drawn:
    merged: Drawn = jax.tree.map(lambda x, y: jnp.where(on, x, y), a, b)
    return merged


def _advance(state: SlotState, rows: RowInputs, choice: Choice) -> SlotState:
    """The slot state after the step; only slots of active samples change."""
    accepted = drafts.accept(rows, choice.token, choice.failed)
    slot = jnp.where(accepted.leaves, rows.slot, state.mu.shape[0])  # out of bounds: dropped
    return state._replace(
        last_token=state.last_token.at[slot].set(choice.token, mode="drop"),
        position=state.position.at[slot].set(rows.position + 1, mode="drop"),
        mu=state.mu.at[slot].set(choice.mu, mode="drop"),
        counts=knobs.count_token(state.counts, rows.slot, choice.token, accepted.kept & rows.penalized),
    )


def _pack(choice: Choice, scores: Scores) -> jax.Array:
    parts = choice._asdict() | scores._asdict()
    return records.pack(parts | {"failed": choice.failed.astype(jnp.int32)}, OUT)


def write_history(state: SlotState, packed: Int32[Array, " C"]) -> SlotState:
    """Load tokens into one slot's counts: int32 [HISTORY_COLUMNS] from `packing.pack_history`."""
    history = records.unpack(packed, HISTORY)
    slot = history["slot"]
    # One slice read and one written: an indexed update would copy all counts.
    old = lax.dynamic_index_in_dim(state.counts, slot, keepdims=False)
    cleared = jnp.where(history["clear"] != 0, jnp.uint16(0), old)
    new = knobs.count_history(cleared, history["tokens"], history["in_prompt"] != 0)
    return state._replace(counts=lax.dynamic_update_index_in_dim(state.counts, new, slot, 0))


def write_bias(state: SlotState, packed: Int32[Array, " C"]) -> SlotState:
    """Load one slot's logit bias: int32 [BIAS_COLUMNS] from `packing.pack_bias`."""
    bias = records.unpack(packed, BIAS)
    return state._replace(
        bias_ids=state.bias_ids.at[bias["slot"]].set(bias["ids"]),
        bias_values=state.bias_values.at[bias["slot"]].set(bias["values"]),
    )
