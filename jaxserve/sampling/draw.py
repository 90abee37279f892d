"""From one row's distribution to one token: random bits, the short list, and the whole vocabulary.

The draw inverts the cumulative distribution in token-id order, over exact integer masses: the short list and the whole
vocabulary give the same token whenever both are applicable, and neither looks at another row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxserve.sampling import exact, field
from jaxserve.sampling.exact import Mass
from jaxserve.sampling.field import Prefix
from jaxserve.sampling.rows import RowInputs

LN2 = math.log(2.0)


class Drawn(NamedTuple):
    """Tokens drawn in R rows."""

    token: jax.Array
    """int32 [R]."""
    d: jax.Array
    """float32 [R]: the token's (logit - row maximum) / temperature."""
    mass: Mass
    """Mass of the distribution drawn from."""


class Tempered(NamedTuple):
    """Rows after the knobs that edit logits, with temperature applied on the fly."""

    x: jax.Array
    """[R, n, CHUNK]: edited logits in chunks."""
    maximum: jax.Array
    """float32 [R]."""
    inverse_temperature: jax.Array
    bits: int
    """Fraction bits of a weight."""

    def d(self, x: jax.Array) -> jax.Array:
        """(x - maximum) / temperature for x [R, ...], at most 0; exactly 0 for the maximum, be it infinite."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        maximum = self.maximum.reshape(shape)
        return jnp.where(x >= maximum, 0.0, (x - maximum) * self.inverse_temperature.reshape(shape))

    def weigh(self, x: jax.Array) -> jax.Array:
        """Weights of x [R, ...]."""
        return exact.weigh(self.d(x), self.bits)


def random_words(rows: RowInputs) -> jax.Array:
    """uint32 [R]: 32 random bits from fold_in(fold_in(key(seed), choice), position).

    The words of the folded threefry key itself: they don't depend on how jax shapes its random arrays.
    """

    def one(seed: jax.Array, choice: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(seed, impl="threefry2x32")
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, choice), position))[0]

    return jax.vmap(one)(rows.seed, rows.choice, rows.position)


def at_least_one(mass: Mass) -> Mass:
    """The mass, or one unit where it is zero."""
    return Mass(mass.high, jnp.where((mass.high == 0) & (mass.low == 0), 1, mass.low))


def mirostat_floor(rows: RowInputs, mu: jax.Array, total: Mass, bits: int) -> jax.Array:
    """float32 [R]: the least d that mirostat keeps (surprise at most mu); the most likely tokens always stay."""
    floor = jnp.minimum(log_mass(total, bits) - mu * LN2, 0.0)
    return jnp.where(rows.mirostat, floor, -jnp.inf)


def log_mass(mass: Mass, bits: int) -> jax.Array:
    """Natural logarithm of a mass relative to the most likely token's."""
    return jnp.log(exact.to_float(mass) * 2.0**-bits)


def _typical_key(d: jax.Array, center: jax.Array) -> jax.Array:
    """uint32, largest for the token whose surprise is nearest to the mean surprise."""
    return ~lax.bitcast_convert_type(jnp.abs(-d - center), jnp.uint32)


def _sum(weights: jax.Array, kept: jax.Array) -> Mass:
    return exact.total(jnp.where(kept, weights, 0))


def _column(mass: Mass) -> Mass:
    return Mass(mass.high[:, None], mass.low[:, None])


def _mass_before(before_RKK: jax.Array, weights_RK: jax.Array) -> Mass:
    """For each token, the mass of the tokens that stand before it."""
    return exact.total(jnp.where(before_RKK, weights_RK[:, None, :], 0))


def draw_listed(
    tempered: Tempered,
    x_RK: jax.Array,
    ids_RK: jax.Array,
    rows: RowInputs,
    total: Mass,
    floor: jax.Array,
    word: jax.Array,
) -> tuple[Drawn, jax.Array]:
    """Truncate and draw from the K most likely tokens, in their order.

    Returns:
        The tokens, and bool [R]: whether the list was long enough for the row (its result holds).
    """
    d, weights = tempered.d(x_RK), tempered.weigh(x_RK)
    limited = rows.top_k > 0
    kept = (jnp.arange(x_RK.shape[1]) < rows.top_k[:, None]) | ~limited[:, None]
    of_list = _sum(weights, kept)
    total = Mass(*(jnp.where(limited, a, b) for a, b in zip(of_list, total, strict=True)))
    complete = limited | (weights[:, -1] == 0)

    typical = _typical_listed(d, weights, kept, ids_RK, total, rows.typical_p)
    kept &= typical | ~rows.uses_typical_p[:, None]
    total = Mass(*(jnp.where(rows.uses_typical_p, a, b) for a, b in zip(_sum(weights, kept), total, strict=True)))

    own = exact.split(jnp.where(kept, weights, 0))
    sums = exact.running(own)
    need = at_least_one(exact.scale(total, rows.top_p))
    nucleus = exact.less(exact.subtract(sums, own), _column(need))
    kept &= nucleus | ~rows.uses_top_p[:, None]

    largest = jnp.max(jnp.where(kept, d, -jnp.inf), axis=-1)
    kept &= d >= jnp.maximum(largest + rows.log_min_p, floor)[:, None]

    complete |= ~kept[:, -1] & ~rows.uses_typical_p
    mass = _sum(weights, kept)
    goal = _column(exact.scale(mass, word))
    before = _mass_before(ids_RK[:, None, :] < ids_RK[:, :, None], jnp.where(kept, weights, 0))
    upto = exact.normalize(before.high + (weights >> 16), before.low + (weights & 0xFFFF))
    index = jnp.argmax(kept & ~exact.less(goal, before) & exact.less(goal, upto), axis=-1)[:, None]
    token, d_token = (jnp.take_along_axis(a, index, axis=-1)[:, 0] for a in (ids_RK, d))
    return Drawn(token, d_token, mass), complete


def _typical_listed(
    d: jax.Array, weights: jax.Array, kept: jax.Array, ids: jax.Array, total: Mass, typical_p: jax.Array
) -> jax.Array:
    surprise = exact.to_float(_sum(exact.weigh_surprise(d, weights), kept))
    key = jnp.where(kept, _typical_key(d, (surprise / exact.to_float(total))[:, None]), 0)
    mine, other = key[:, :, None], key[:, None, :]
    before = (other > mine) | ((other == mine) & (ids[:, None, :] < ids[:, :, None]))
    need = at_least_one(exact.scale(total, typical_p))
    return exact.less(_mass_before(before, jnp.where(kept, weights, 0)), _column(need))


class _Cut(NamedTuple):
    """What a row keeps of the whole vocabulary."""

    typical: Prefix
    nucleus: Prefix
    floor: jax.Array
    """float32 [R]: least d."""
    center: jax.Array
    """float32 [R]: mean surprise, in the units of d."""


def _kept(tempered: Tempered, cut: _Cut, x: jax.Array, ids: jax.Array) -> jax.Array:
    d = tempered.d(x)
    typical = cut.typical.holds(_typical_key(d, cut.center[:, None, None]), ids)
    return typical & cut.nucleus.holds(field.order_key(x), ids) & (d >= cut.floor[:, None, None])


def draw_all(
    tempered: Tempered, chunk_mass: Mass, rows: RowInputs, needed: jax.Array, floor: jax.Array, word: jax.Array
) -> Drawn:
    """Truncate and draw from the whole vocabulary, for rows with top_k off. Results hold where `needed`."""
    cuts = needed & (rows.uses_typical_p | rows.uses_top_p | rows.mirostat | (rows.log_min_p > -jnp.inf))
    drawn: Drawn = lax.cond(
        jnp.any(cuts),
        lambda: _draw_cut(tempered, chunk_mass, rows, needed, floor, word),
        lambda: _draw_uncut(tempered, chunk_mass, word),
    )
    return drawn


def _draw_uncut(tempered: Tempered, chunk_mass: Mass, word: jax.Array) -> Drawn:
    total = exact.add_up(chunk_mass)
    token = field.locate(
        chunk_mass, lambda chunk: tempered.weigh(field.take_chunk(tempered.x, chunk)), exact.scale(total, word)
    )
    return Drawn(token, tempered.d(_take_token(tempered.x, token)), total)


def _take_token(x_RnG: jax.Array, token: jax.Array) -> jax.Array:
    chunk = field.take_chunk(x_RnG, token // field.CHUNK)
    return jnp.take_along_axis(chunk, (token % field.CHUNK)[:, None], axis=-1)[:, 0]


def _draw_cut(
    tempered: Tempered, chunk_mass: Mass, rows: RowInputs, needed: jax.Array, floor: jax.Array, word: jax.Array
) -> Drawn:
    x, R = tempered.x, tempered.maximum.shape[0]
    ids = field.ids_of(x.shape[1])
    total = exact.add_up(chunk_mass)
    every = field.everything(R)
    zeros = jnp.zeros(R, jnp.float32)
    typical, center, largest, total = lax.cond(
        jnp.any(needed & rows.uses_typical_p),
        lambda: _typical_all(tempered, rows, ids, total),
        lambda: (every, zeros, zeros, total),
    )
    cut = _Cut(typical, every, jnp.maximum(largest + rows.log_min_p, floor), center)
    nucleus = lax.cond(
        jnp.any(needed & rows.uses_top_p), lambda: _nucleus_all(tempered, rows, ids, total, cut), lambda: every
    )
    cut = cut._replace(nucleus=nucleus)

    def weights_in(chunk: jax.Array) -> jax.Array:
        part = field.take_chunk(x, chunk)[:, None]
        inside = chunk[:, None, None] * field.CHUNK + jnp.arange(field.CHUNK, dtype=jnp.int32)
        return jnp.where(_kept(tempered, cut, part, inside), tempered.weigh(part), 0)[:, 0]

    masses = exact.total(jnp.where(_kept(tempered, cut, x, ids), tempered.weigh(x), 0))
    mass = exact.add_up(masses)
    token = field.locate(masses, weights_in, exact.scale(mass, word))
    return Drawn(token, tempered.d(_take_token(x, token)), mass)


def _typical_all(
    tempered: Tempered, rows: RowInputs, ids: jax.Array, total: Mass
) -> tuple[Prefix, jax.Array, jax.Array, Mass]:
    """typical_p over the whole vocabulary: the set, the mean surprise, the set's largest d and its mass."""
    d, weights = tempered.d(tempered.x), tempered.weigh(tempered.x)
    surprise = exact.add_up(exact.total(exact.weigh_surprise(d, weights)))
    center = exact.to_float(surprise) / exact.to_float(total)
    key = _typical_key(d, center[:, None, None])
    found = field.select(key, weights, at_least_one(exact.scale(total, rows.typical_p)))
    every = field.everything(d.shape[0])
    on = rows.uses_typical_p
    prefix = Prefix(*(jnp.where(on, a, b) for a, b in zip(found, every, strict=True)))
    inside = prefix.holds(key, ids)
    largest = jnp.max(jnp.where(inside & (weights > 0), d, -jnp.inf), axis=(1, 2))
    return prefix, center, largest, exact.add_up(exact.total(jnp.where(inside, weights, 0)))


def _nucleus_all(tempered: Tempered, rows: RowInputs, ids: jax.Array, total: Mass, cut: _Cut) -> Prefix:
    """top_p over the whole vocabulary, within what typical_p left."""
    x = tempered.x
    typical = cut.typical.holds(_typical_key(tempered.d(x), cut.center[:, None, None]), ids)
    weights = jnp.where(typical, tempered.weigh(x), 0)
    found = field.select(field.order_key(x), weights, at_least_one(exact.scale(total, rows.top_p)))
    every = field.everything(x.shape[0])
    return Prefix(*(jnp.where(rows.uses_top_p, a, b) for a, b in zip(found, every, strict=True)))
