"""From one row's distribution to one token: random bits, the short list, and the whole vocabulary.

The draw inverts the cumulative distribution in token-id order, over exact integer masses: the short list and the whole
vocabulary give the same token whenever both are applicable, and neither looks at another row.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from jaxserve.sampling import chunks, masses, threefry
from jaxserve.sampling.chunks import Prefix
from jaxserve.sampling.columns import RowInputs
from jaxserve.sampling.masses import Mass

LN2 = math.log(2.0)


class Drawn(NamedTuple):
    """N tokens drawn."""

    token: Int32[Array, " N"]
    d: Float32[Array, " N"]
    """The token's (logit - row maximum) / temperature."""
    mass: Mass
    """Mass of the distribution drawn from."""


def nothing(mass: Mass) -> Drawn:
    """A placeholder for rows that don't draw."""
    return Drawn(jnp.zeros(mass.high.shape, jnp.int32), jnp.zeros(mass.high.shape, jnp.float32), mass)


class Tempered(NamedTuple):
    """Rows after the knobs that edit logits, with temperature applied on the fly."""

    x: Float32[Array, "N n G"]
    """Edited logits in chunks."""
    maximum: Float32[Array, " N"]
    inverse_temperature: Float32[Array, " N"]

    @property
    def size(self) -> int:
        """Tokens, padding included."""
        return self.x.shape[1] * self.x.shape[2]

    @property
    def bits(self) -> int:
        """Fraction bits of a weight."""
        return masses.fraction_bits(self.size)

    def d(self, x: Float32[Array, "N *rest"]) -> Float32[Array, "N *rest"]:
        """(x - maximum) / temperature for x [N, ...], at most 0; exactly 0 for the maximum, be it infinite."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        maximum = self.maximum.reshape(shape)
        d = (x - maximum) * self.inverse_temperature.reshape(shape)
        return jnp.where(x >= maximum, 0.0, jnp.where(x < maximum, d, -jnp.inf))  # NaN: -inf

    def weigh(self, x: Float32[Array, "N *rest"]) -> UInt32[Array, "N *rest"]:
        """Weights of x [N, ...]."""
        return masses.weigh(self.d(x), self.bits)


def random_words(rows: RowInputs) -> UInt32[Array, " N"]:
    """uint32 [N]: 32 random bits from fold_in(fold_in(key(seed), choice), position).

    The words of the folded threefry key itself: they don't depend on how jax shapes its random arrays.
    """
    key = (rows.seed[:, 0], rows.seed[:, 1])
    for data in (rows.choice, rows.position):
        key = threefry.fold_in(key, data.astype(jnp.uint32))
    return key[0]


def at_least_one(mass: Mass) -> Mass:
    """The mass, or one unit where it is zero."""
    return Mass(mass.high, jnp.where((mass.high == 0) & (mass.low == 0), 1, mass.low))


def mirostat_floor(rows: RowInputs, mu: Float32[Array, " N"], total: Mass, bits: int) -> Float32[Array, " N"]:
    """float32 [N]: the least d that mirostat keeps (surprise at most mu); the most likely tokens always stay."""
    floor = jnp.minimum(log_mass(total, bits) - mu * LN2, 0.0)
    return jnp.where(rows.mirostat, floor, -jnp.inf)


def log_mass(mass: Mass, bits: int) -> Float32[Array, "..."]:
    """Natural logarithm of a mass relative to the most likely token's."""
    return jnp.log(masses.to_float(mass) * 2.0**-bits)


class Pool(NamedTuple):
    """Tokens that a row may draw, [N, n, G]: the whole vocabulary in id order, or a list of the most likely."""

    x: Float32[Array, "N n G"]
    ids: Int32[Array, "#N n G"]
    d: Float32[Array, "N n G"]
    weights: UInt32[Array, "N n G"]
    """0 for tokens that are out already."""
    bits: int
    """Fraction bits of a weight."""
    id_bits: int


def pool_of(tempered: Tempered, x: Float32[Array, "N n G"], ids: Int32[Array, "#N n G"]) -> Pool:
    """A pool in which no token is out."""
    d = tempered.d(x)
    return Pool(x, ids, d, masses.weigh(d, tempered.bits), tempered.bits, (tempered.size - 1).bit_length())


def truncate(
    pool: Pool, rows: RowInputs, on: Bool[Array, " N"], total: Mass, floor: Float32[Array, " N"]
) -> UInt32[Array, "N n G"]:
    """typical_p, top_p, min_p and mirostat's bound: the weights uint32 [N, n, G] of what they leave.

    Args:
        pool: tokens; rows that use typical_p or top_p must find all tokens with weight in it that matter.
        rows: knobs.
        on: bool [N], rows whose result is wanted.
        total: mass [N] of the whole distribution.
        floor: from `mirostat_floor`.
    """
    every = chunks.everything(floor.shape[0])
    zeros = jnp.zeros_like(floor)
    typical, center, largest, total = lax.cond(
        jnp.any(on & rows.uses_typical_p),
        lambda: _typical(pool, rows, total),
        lambda: (every, zeros, zeros, total),
    )
    inside = typical.holds(_typical_key(pool.d, center), pool.ids)
    floors = (  # the least d that each such knob keeps
        largest + rows.log_min_p,
        floor,
    )
    weights = jnp.where(inside & (pool.d >= reduce(jnp.maximum, floors)[:, None, None]), pool.weights, 0)
    nucleus = lax.cond(
        jnp.any(on & rows.uses_top_p),
        lambda: _nucleus(pool, jnp.where(inside, pool.weights, 0), rows, total),
        lambda: every,
    )
    return jnp.where(nucleus.holds(chunks.order_key(pool.x), pool.ids), weights, 0)


def _typical_key(d: jax.Array, center: jax.Array) -> jax.Array:
    """uint32, largest for the token whose surprise is nearest to the mean surprise."""
    return ~lax.bitcast_convert_type(jnp.abs(-d - center[:, None, None]), jnp.uint32)


def _typical(pool: Pool, rows: RowInputs, total: Mass) -> tuple[Prefix, jax.Array, jax.Array, Mass]:
    """typical_p: the set it keeps, the mean surprise, the set's largest d and its mass.

    Surprises are compared in units of d: the surprise of a token is log(total) - d, so its distance from the entropy is
    |-d - mean(-d)|.
    """
    surprise = masses.add_up(masses.total(masses.weigh_surprise(pool.d, pool.weights)))
    center = masses.to_float(surprise) / masses.to_float(total)
    key = _typical_key(pool.d, center)
    need = at_least_one(masses.scale(total, rows.typical_p))
    prefix = _where(rows.uses_typical_p, chunks.select(key, pool.ids, pool.weights, need, pool.id_bits))
    weights = jnp.where(prefix.holds(key, pool.ids), pool.weights, 0)
    largest = jnp.max(jnp.where(weights > 0, pool.d, -jnp.inf), axis=(1, 2))
    total = Mass(*(jnp.where(rows.uses_typical_p, a, b) for a, b in zip(_add(weights), total, strict=True)))
    return prefix, center, jnp.where(rows.uses_typical_p, largest, 0.0), total


def _nucleus(pool: Pool, weights: jax.Array, rows: RowInputs, total: Mass) -> Prefix:
    """top_p: the shortest prefix by likelihood that reaches the mass."""
    need = at_least_one(masses.scale(total, rows.top_p))
    return _where(rows.uses_top_p, chunks.select(chunks.order_key(pool.x), pool.ids, weights, need, pool.id_bits))


def _where(on: jax.Array, prefix: Prefix) -> Prefix:
    every = chunks.everything(on.shape[0])
    return Prefix(*(jnp.where(on, a, b) for a, b in zip(prefix, every, strict=True)))


def _add(weights: jax.Array) -> Mass:
    return masses.add_up(masses.total(weights))


def draw_listed(
    tempered: Tempered,
    x_NK: Float32[Array, "N K"],
    ids_NK: Int32[Array, "N K"],
    rows: RowInputs,
    total: Mass,
    floor: Float32[Array, " N"],
    word: UInt32[Array, " N"],
) -> tuple[Drawn, Bool[Array, " N"]]:
    """Truncate and draw from the K most likely tokens, in their order.

    Returns:
        The tokens, and bool [N]: whether the list was long enough for the row (its result holds).
    """
    pool = pool_of(tempered, x_NK[:, None], ids_NK[:, None])
    limited = rows.top_k > 0
    in_top_k = (jnp.arange(x_NK.shape[1]) < rows.top_k[:, None]) | ~limited[:, None]
    last = pool.weights[:, 0, -1]
    pool = pool._replace(weights=jnp.where(in_top_k[:, None], pool.weights, 0))
    total = Mass(*(jnp.where(limited, a, b) for a, b in zip(_add(pool.weights), total, strict=True)))
    kept = truncate(pool, rows, rows.draws, total, floor)
    complete = limited | (last == 0) | ((kept[:, 0, -1] == 0) & ~rows.uses_typical_p)
    mass = _add(kept)
    token = chunks.first_by_id(pool.ids, kept, masses.increment(masses.scale(mass, word)), pool.id_bits)
    d = jnp.max(jnp.where(pool.ids == token[:, None, None], pool.d, -jnp.inf), axis=(1, 2))
    return Drawn(token, d, mass), complete | (x_NK.shape[1] >= tempered.size)


def draw_untruncated(tempered: Tempered, chunk_mass: Mass, word: UInt32[Array, " N"]) -> Drawn:
    """Draw from the whole vocabulary."""
    total = masses.add_up(chunk_mass)
    target = masses.scale(total, word)
    x = tempered.x
    token = chunks.locate(chunk_mass, lambda chunk: tempered.weigh(chunks.take_chunk(x, chunk)), target)
    return Drawn(token, d_of(tempered, token), total)


def redraw_truncated(
    drawn: Drawn,
    tempered: Tempered,
    rows: RowInputs,
    needed: Bool[Array, " N"],
    total: Mass,
    floor: Float32[Array, " N"],
    word: UInt32[Array, " N"],
) -> Drawn:
    """Truncate the whole vocabulary and draw from it, in the rows `needed`, one after the other.

    Row by row because few rows of a batch come here, and because one row's weights stay in a CPU's cache.
    """

    def body(_: jax.Array, carry: tuple[jax.Array, Drawn]) -> tuple[jax.Array, Drawn]:
        left, drawn = carry
        row = jnp.argmax(left)
        one = jax.tree.map(lambda a: a[row][None], (tempered, rows, total, floor, word))
        found = _draw_truncated(*one)
        merged: Drawn = jax.tree.map(lambda a, b: a.at[row].set(b[0]), drawn, found)
        return left.at[row].set(False), merged

    redrawn: Drawn = lax.fori_loop(0, jnp.sum(needed), body, (needed, drawn))[1]
    return redrawn


def _draw_truncated(tempered: Tempered, rows: RowInputs, total: Mass, floor: jax.Array, word: jax.Array) -> Drawn:
    x = tempered.x
    pool = pool_of(tempered, x, chunks.ids_of(x.shape[1]))
    kept = truncate(pool, rows, jnp.ones_like(rows.active), total, floor)
    chunk_mass = masses.total(kept)
    mass = masses.add_up(chunk_mass)
    token = chunks.locate(chunk_mass, lambda chunk: chunks.take_chunk(kept, chunk), masses.scale(mass, word))
    return Drawn(token, d_of(tempered, token), mass)


def d_of(tempered: Tempered, token: Int32[Array, " N"]) -> Float32[Array, " N"]:
    """d of one token of each row."""
    chunk = chunks.take_chunk(tempered.x, token // chunks.CHUNK)
    return tempered.d(jnp.take_along_axis(chunk, (token % chunks.CHUNK)[:, None], axis=-1)[:, 0])
