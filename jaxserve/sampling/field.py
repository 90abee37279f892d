"""Logits laid out in chunks, and the searches over them that need no sort.

V tokens become n chunks of CHUNK consecutive ids (padded with -inf). "First" is always the order of one key: largest
key first, lowest id first among equal keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxserve.sampling import exact
from jaxserve.sampling.exact import Mass

CHUNK = 64
"""G: tokens of one chunk (measured: 64 is fastest for the two-level top-k on CPU)."""


class Prefix(NamedTuple):
    """A set of tokens that is a prefix of the order by a key: key > `key`, or equal and id <= `token`. Arrays [R]."""

    key: jax.Array
    """uint32."""
    token: jax.Array
    """int32."""

    def holds(self, key_RnG: jax.Array, ids: jax.Array) -> jax.Array:
        """Membership of tokens by their keys and ids."""
        bound, last = self.key[:, None, None], self.token[:, None, None]
        return (key_RnG > bound) | ((key_RnG == bound) & (ids <= last))


def everything(num_rows: int) -> Prefix:
    """The prefix that holds every token."""
    return Prefix(jnp.zeros(num_rows, jnp.uint32), jnp.full(num_rows, 2**31 - 1, jnp.int32))


def to_chunks(x_RV: jax.Array) -> jax.Array:
    """[R, V] -> [R, n, CHUNK]; the last chunk is padded with -inf, NaN becomes -inf."""
    R, V = x_RV.shape
    clean = jnp.where(jnp.isnan(x_RV), -jnp.inf, x_RV)
    if V % CHUNK:
        clean = jnp.pad(clean, ((0, 0), (0, -V % CHUNK)), constant_values=-jnp.inf)
    return clean.reshape(R, -1, CHUNK)


def ids_of(num_chunks: int) -> jax.Array:
    """int32 [1, n, CHUNK]: the token ids of all chunks."""
    return jnp.arange(num_chunks * CHUNK, dtype=jnp.int32).reshape(1, num_chunks, CHUNK)


def order_key(x: jax.Array) -> jax.Array:
    """uint32 keys in the order of the floats x (no NaN); -0 and 0 are equal."""
    bits = lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
    return jnp.where(bits >> 31 != 0, ~bits, bits | jnp.uint32(1 << 31))


def take_chunk(x_RnG: jax.Array, chunk_R: jax.Array) -> jax.Array:
    """One chunk per row: [R, CHUNK]."""
    return jnp.take_along_axis(x_RnG, chunk_R[:, None, None], axis=1)[:, 0]


def argmax(x_RnG: jax.Array, chunk_max_Rn: jax.Array) -> jax.Array:
    """int32 [R]: the lowest id among the largest values."""
    chunk = jnp.argmax(chunk_max_Rn, axis=-1).astype(jnp.int32)
    return chunk * CHUNK + jnp.argmax(take_chunk(x_RnG, chunk), axis=-1).astype(jnp.int32)


def top_k(x_RnG: jax.Array, chunk_max_Rn: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The first k tokens by value: (values [R, k], ids int32 [R, k]), exact, ties by id.

    The first k tokens lie in the first k chunks by (maximum, id): each of those holds a token, its maximum, that comes
    before every token of the other chunks.
    """
    n = x_RnG.shape[1]
    _, chunks = lax.top_k(_signed(order_key(chunk_max_Rn)), min(k, n))
    chunks = jnp.sort(chunks, axis=-1)
    x = jnp.take_along_axis(x_RnG, chunks[:, :, None], axis=1).reshape(x_RnG.shape[0], -1)
    _, index = lax.top_k(_signed(order_key(x)), k)
    ids = jnp.take_along_axis(chunks, index // CHUNK, axis=1) * CHUNK + index % CHUNK
    return jnp.take_along_axis(x, index, axis=1), ids


def _signed(key: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(key ^ jnp.uint32(1 << 31), jnp.int32)


def locate(chunk_mass_Rn: Mass, weights_in: Callable[[jax.Array], jax.Array], target: Mass) -> jax.Array:
    """int32 [R]: the first id at which the running mass exceeds `target` (which must be below the total).

    Args:
        chunk_mass_Rn: mass of each chunk.
        weights_in: the weights [R, CHUNK] of one chunk per row, given its index [R].
        target: how much mass lies before the token.
    """
    chunk, rest = _find(chunk_mass_Rn, target)
    inside, _ = _find(exact.split(weights_in(chunk)), rest)
    return chunk * CHUNK + inside


def _find(mass_Rn: Mass, target: Mass) -> tuple[jax.Array, Mass]:
    """Index of the first running sum above the target, and what the target leaves inside it."""
    sums = exact.running(mass_Rn)
    goal = Mass(target.high[:, None], target.low[:, None])
    index = jnp.sum(~exact.less(goal, sums), axis=-1, dtype=jnp.int32)
    index = jnp.minimum(index, mass_Rn.high.shape[-1] - 1)
    at = Mass(*(jnp.take_along_axis(word, index[:, None], axis=-1)[:, 0] for word in sums))
    own = Mass(*(jnp.take_along_axis(word, index[:, None], axis=-1)[:, 0] for word in mass_Rn))
    return index, exact.subtract(target, exact.subtract(at, own))


def select(key_RnG: jax.Array, weights_RnG: jax.Array, need: Mass) -> Prefix:
    """The shortest prefix by key whose mass reaches `need` (at least 1 unit, at most the total).

    Finds the bounding key bit by bit: 32 masked sums, no sort.
    """
    R = key_RnG.shape[0]

    def mass_where(mask: jax.Array) -> Mass:
        return exact.add_up(exact.total(jnp.where(mask, weights_RnG, 0)))

    def refine(bit: jax.Array, bound: jax.Array) -> jax.Array:
        trial = bound | (jnp.uint32(1 << 31) >> bit.astype(jnp.uint32))
        enough = ~exact.less(mass_where(key_RnG >= trial[:, None, None]), need)
        return jnp.where(enough, trial, bound)

    key = lax.fori_loop(0, 32, refine, jnp.zeros(R, jnp.uint32))
    rest = exact.subtract(need, mass_where(key_RnG > key[:, None, None]))
    one = Mass(jnp.zeros(R, jnp.uint32), jnp.ones(R, jnp.uint32))
    ties = jnp.where(key_RnG == key[:, None, None], weights_RnG, 0)
    last = locate(exact.total(ties), lambda chunk: take_chunk(ties, chunk), exact.subtract(rest, one))
    return Prefix(key, last)
