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
from jaxtyping import Array, Bool, Float32, Int32, Shaped, UInt32

from jaxserve.sampling import masses
from jaxserve.sampling.masses import Mass

CHUNK = 128
"""G: tokens of one chunk: a TPU's lanes; on CPU 64 and 128 are equally fast, 32 and 256 slower."""


class Prefix(NamedTuple):
    """A set of tokens that is a prefix of the order by a key: key > `key`, or equal and id <= `token`. Arrays [N]."""

    key: UInt32[Array, " N"]
    token: Int32[Array, " N"]

    def holds(self, key_NnG: UInt32[Array, "N n G"], ids: Int32[Array, "#N n G"]) -> Bool[Array, "N n G"]:
        """Membership of tokens by their keys and ids."""
        bound, last = self.key[:, None, None], self.token[:, None, None]
        return (key_NnG > bound) | ((key_NnG == bound) & (ids <= last))


def everything(num_rows: int) -> Prefix:
    """The prefix that holds every token."""
    return Prefix(jnp.zeros(num_rows, jnp.uint32), jnp.full(num_rows, 2**31 - 1, jnp.int32))


def to_chunks(x_NV: Float32[Array, "N V"]) -> Float32[Array, "N n G"]:
    """[N, V] -> [N, n, CHUNK]; the last chunk is padded with -inf. Costs nothing when CHUNK divides V."""
    N, V = x_NV.shape
    if V % CHUNK:
        x_NV = jnp.pad(x_NV, ((0, 0), (0, -V % CHUNK)), constant_values=-jnp.inf)
    return x_NV.reshape(N, -1, CHUNK)


def clean(x: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """NaN as -inf (a token that can't be drawn) and -0 as its equal 0, so that comparing bits is comparing values."""
    return jnp.where(jnp.isnan(x), -jnp.inf, jnp.where(x == 0, 0.0, x))


def chunk_maxima(x_NnG: Float32[Array, "N n G"]) -> Float32[Array, "N n"]:
    """float32 [N, n]: the largest value of each chunk, -inf where all are NaN."""

    # Not `max`: whether it passes NaN on depends on the device. And cleaning every logit first costs 4 times as much.
    def larger(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(b > a, b, a)

    return clean(lax.reduce(x_NnG, jnp.float32(-jnp.inf), larger, (2,)))


def ids_of(num_chunks: int) -> Int32[Array, "1 n G"]:
    """int32 [1, n, CHUNK]: the token ids of all chunks."""
    return jnp.arange(num_chunks * CHUNK, dtype=jnp.int32).reshape(1, num_chunks, CHUNK)


def order_key(x: Float32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """uint32 keys in the order of the floats x."""
    bits = lax.bitcast_convert_type(clean(x), jnp.uint32)
    return jnp.where(bits >> 31 != 0, ~bits, bits | jnp.uint32(1 << 31))


def take_chunk(x_NnG: Shaped[Array, "N n G"], chunk_N: Int32[Array, " N"]) -> Shaped[Array, "N G"]:
    """One chunk per row: [N, CHUNK]."""
    return jnp.take_along_axis(x_NnG, chunk_N[:, None, None], axis=1)[:, 0]


def argmax(x_NnG: Float32[Array, "N n G"], chunk_max_Nn: Float32[Array, "N n"]) -> Int32[Array, " N"]:
    """int32 [N]: the lowest id among the largest values."""
    chunk = jnp.argmax(chunk_max_Nn, axis=-1).astype(jnp.int32)
    return chunk * CHUNK + jnp.argmax(clean(take_chunk(x_NnG, chunk)), axis=-1).astype(jnp.int32)


def top_k(
    x_NnG: Float32[Array, "N n G"], chunk_max_Nn: Float32[Array, "N n"], k: int
) -> tuple[Float32[Array, "N {k}"], Int32[Array, "N {k}"]]:
    """The first k tokens by value: (values [N, k], ids int32 [N, k]), exact, ties by id.

    TPUs have an operation for it that beats the two levels by the compiler's cost model, and compiles in a tenth of the
    time; on CPU two levels take two thirds of its time.
    """
    found: tuple[jax.Array, jax.Array] = lax.platform_dependent(
        x_NnG,
        chunk_max_Nn,
        tpu=lambda x, _: _top_k_whole(x, k),
        default=lambda x, chunk_max: _top_k_two_level(x, chunk_max, k),
    )
    return found


def _top_k_whole(x_NnG: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    values, ids = lax.top_k(clean(x_NnG).reshape(x_NnG.shape[0], -1), k)  # equal values: lower index first
    return values, ids


def _top_k_two_level(x_NnG: jax.Array, chunk_max_Nn: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The first k tokens lie in the first k chunks by (maximum, id).

    Each of those holds a token, its maximum, that comes before every token of the other chunks.
    """
    n = x_NnG.shape[1]
    _, chunks = lax.top_k(chunk_max_Nn, min(k, n))  # equal values: lower index first
    chunks = _ascending(chunks)
    x = jnp.take_along_axis(x_NnG, chunks[:, :, None], axis=1).reshape(x_NnG.shape[0], -1)
    values, index = lax.top_k(clean(x), k)
    ids = jnp.take_along_axis(chunks, index // CHUNK, axis=1) * CHUNK + index % CHUNK
    return values, ids


def _ascending(x_NK: jax.Array) -> jax.Array:
    """Distinct integers [N, K] in ascending order, by comparing all pairs: K is small and sorts compile slowly."""
    rank = jnp.sum(x_NK[:, None, :] < x_NK[:, :, None], axis=-1, dtype=jnp.int32)
    place = jnp.arange(x_NK.shape[1], dtype=jnp.int32)[:, None]
    return jnp.sum(jnp.where(rank[:, None, :] == place, x_NK[:, None, :], 0), axis=-1, dtype=jnp.int32)


def locate(chunk_mass_Nn: Mass, weights_in: Callable[[jax.Array], jax.Array], target: Mass) -> Int32[Array, " N"]:
    """int32 [N]: the first id at which the running mass exceeds `target` (which must be below the total).

    Args:
        chunk_mass_Nn: mass of each chunk.
        weights_in: the weights [N, CHUNK] of one chunk per row, given its index [N].
        target: how much mass lies before the token.
    """
    chunk, rest = _find(chunk_mass_Nn, target)
    inside, _ = _find(masses.split(weights_in(chunk)), rest)
    return chunk * CHUNK + inside


def _find(mass_Nn: Mass, target: Mass) -> tuple[jax.Array, Mass]:
    """Index of the first running sum above the target, and what the target leaves inside it."""
    sums = masses.running(mass_Nn)
    goal = Mass(target.high[:, None], target.low[:, None])
    index = jnp.sum(~masses.less(goal, sums), axis=-1, dtype=jnp.int32)
    index = jnp.minimum(index, mass_Nn.high.shape[-1] - 1)
    at = Mass(*(jnp.take_along_axis(word, index[:, None], axis=-1)[:, 0] for word in sums))
    own = Mass(*(jnp.take_along_axis(word, index[:, None], axis=-1)[:, 0] for word in mass_Nn))
    return index, masses.subtract(target, masses.subtract(at, own))


def bisect(
    key: UInt32[Array, "#N n G"], weights: UInt32[Array, "N n G"], need: Mass, bits: int = 32
) -> UInt32[Array, " N"]:
    """uint32 [N]: the largest bound b at which the tokens with key >= b weigh at least `need` (at most the total).

    Found bit by bit, `bits` masked sums over [N, n, G], no sort. Keys lie below 2^bits.
    """

    def refine(step: jax.Array, bound: jax.Array) -> jax.Array:
        trial = bound | (jnp.uint32(1 << (bits - 1)) >> step.astype(jnp.uint32))
        return jnp.where(masses.less(mass_where(key >= trial[:, None, None], weights), need), bound, trial)

    bound: jax.Array = lax.fori_loop(0, bits, refine, jnp.zeros(weights.shape[0], jnp.uint32))
    return bound


def mass_where(mask: Bool[Array, "#N n G"], weights: UInt32[Array, "N n G"]) -> Mass:
    """Mass [N] of the tokens [N, n, G] where the mask holds."""
    return masses.add_up(masses.total(jnp.where(mask, weights, 0)))


def first_by_id(
    ids: Int32[Array, "#N n G"], weights: UInt32[Array, "N n G"], need: Mass, id_bits: int
) -> Int32[Array, " N"]:
    """int32 [N]: the lowest id at which the tokens up to it weigh at least `need` (1 unit to the total)."""
    highest = (1 << id_bits) - 1
    return highest - bisect((highest - ids).astype(jnp.uint32), weights, need, id_bits).astype(jnp.int32)


def select(
    key: UInt32[Array, "N n G"], ids: Int32[Array, "#N n G"], weights: UInt32[Array, "N n G"], need: Mass, id_bits: int
) -> Prefix:
    """The shortest prefix, by key and then id, whose mass reaches `need` (1 unit to the total)."""
    bound = bisect(key, weights, need)
    above = mass_where(key > bound[:, None, None], weights)
    at_bound = jnp.where(key == bound[:, None, None], weights, 0)
    tied = jnp.sum(at_bound != 0, axis=(1, 2)) > 1
    last = lax.cond(
        jnp.any(tied),
        lambda: first_by_id(ids, at_bound, masses.subtract(need, above), id_bits),
        lambda: everything(bound.shape[0]).token,
    )
    return Prefix(bound, last)
