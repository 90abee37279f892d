"""The kernels as functions of arrays, for use inside jitted functions on CPU devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxserve.native.library import Library

FLOATS = ("float32", "bfloat16", "float16")
"""Types of weights that `matmul_float` takes."""

KEY_BLOCK = 64
"""Positions per step of the attention's online softmax; pages must divide it (`kKeyBlock`)."""


TILE = 16
"""Outputs side by side in `Tiles` (`kTile`)."""


class Pages(NamedTuple):
    """Where a step's rows are in the cache; see `models.metadata.AttentionMeta`."""

    cu_q_lens: jax.Array
    kv_lens: jax.Array
    page_table: jax.Array
    first_page: jax.Array | int
    lasts_T: jax.Array | None = None


def matmul_float(library: Library, x_TI: jax.Array, weights_OI: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """x W^T for each weight.

    A row's bits depend on that row and the weight alone.

    Args:
        library: whose kernel runs.
        x_TI: float32 [T, in].
        weights_OI: [out, in] each, of one of `FLOATS`; widened to float32 in the product.

    Returns:
        float32 [T, out] for each weight.
    """
    tokens = x_TI.shape[0]
    shapes = [jax.ShapeDtypeStruct((tokens, weight.shape[0]), jnp.float32) for weight in weights_OI]
    return tuple(jax.ffi.ffi_call(library.target("matmul_float"), shapes)(x_TI, *weights_OI))


class Codes(NamedTuple):
    """A quantised weight: W[o, i] = codes[o, i] * scale[o, i // block] + offset[o, i // block]."""

    codes: jax.Array
    """[out, in] int8, or bytes of FP8 (e4m3); [out, in / 2] where two FP4 codes (e2m1) share a byte, or,
    with an offset, two numbers from 0 to 15."""
    scale: jax.Array
    """float32 [out], or [out, blocks]."""
    offset: jax.Array | None = None
    """float32 [out, blocks]: added to what codes and scales give; all weights of a call have one, or none."""


def matmul_scaled(
    library: Library, x_TI: jax.Array, weights: Sequence[Codes], *, block: int | None, pairs: bool = False
) -> tuple[jax.Array, ...]:
    """x W^T for each weight, dequantised in the product.

    A row's bits depend on that row and the weight alone. Sums are float32.

    Args:
        library: whose kernel runs.
        x_TI: float32 [T, in].
        weights: alike in format.
        block: neighbouring inputs that share a scale; None = all of a row.
        pairs: two codes share a byte, the even input in the low half.

    Returns:
        float32 [T, out] for each weight.
    """
    shapes = [jax.ShapeDtypeStruct((x_TI.shape[0], weight.codes.shape[0]), jnp.float32) for weight in weights]
    call = jax.ffi.ffi_call(library.target("matmul_scaled"), shapes)
    arrays = [array for weight in weights for array in weight if array is not None]
    offsets = weights[0].offset is not None
    return tuple(call(x_TI, *arrays, block=np.int64(block or 0), pairs=np.int64(pairs), offsets=np.int64(offsets)))


class Tiles(NamedTuple):
    """A weight in tiles of 16 outputs, W[o, i] = codes[o, i] * scale[o, i // group] (+ offset[o, i // group])."""

    codes: jax.Array
    """int8 [out / 16, in * 16]: for four inputs four codes of the first output, four of the second ...; or uint8
    [out / 16, in * 8] of codes from 0 to 15: of eight inputs the first four in the low halves."""
    scale: jax.Array
    """float16 or float32 [out / 16, groups * 16], or with offsets [out / 16, groups * 32]: of each group 16 scales,
    then 16 offsets. With 4-bit codes, and in float16, groups are of 32."""


def matmul_blocks(
    library: Library, x_TI: jax.Array, weights: Sequence[Tiles], *, group: int, offsets: bool
) -> tuple[jax.Array, ...]:
    """x W^T for each weight, of x in 16 bits: each 32 neighbours in 32,258ths of their largest magnitude.

    Products are added exactly within a group, and as float32 over the groups. A row's bits depend on that row and the
    weight alone.

    Args:
        library: whose kernel runs.
        x_TI: float32 [T, in], in a multiple of 32.
        weights: 8 at most, alike in format.
        group: neighbouring inputs that share a scale, 16 or 32.
        offsets: whether weights have them.

    Returns:
        float32 [T, out] for each weight.
    """
    shapes = [jax.ShapeDtypeStruct((x_TI.shape[0], weight.codes.shape[0] * TILE), jnp.float32) for weight in weights]
    call = jax.ffi.ffi_call(library.target("matmul_blocks"), shapes)
    arrays = [array for weight in weights for array in weight]
    return tuple(call(x_TI, *arrays, group=np.int64(group), offsets=np.int64(offsets)))


def attention(
    library: Library,
    q_TNH: jax.Array,
    k_TKH: jax.Array,
    v_TKH: jax.Array,
    cache: jax.Array,
    pages: Pages,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks_N: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Writes keys and values into their pages, in place where the cache is donated, and attends.

    Args:
        library: whose kernel runs.
        q_TNH: float32 queries.
        k_TKH: float32 keys.
        v_TKH: float32 values.
        cache: float32 or bfloat16 [S*P, 2K, page, H]: head k's keys are 2k, its values 2k + 1.
        pages: of the rows, and the last position that each token sees (None = its own); tokens beyond the last row
            are padding, and write nothing.
        scale: of the scores.
        window: positions that a query sees, its own included; None = all.
        softcap: bound of the scores (tanh); None = none.
        sinks_N: per head a logit without a value; None = none.

    Returns:
        float32 [T, N, H], zero for padding; and the cache.
    """
    sinks = jnp.zeros(0, jnp.float32) if sinks_N is None else sinks_N.astype(jnp.float32)
    shapes = (jax.ShapeDtypeStruct(q_TNH.shape, jnp.float32), jax.ShapeDtypeStruct(cache.shape, cache.dtype))
    call = jax.ffi.ffi_call(library.target("attention"), shapes, input_output_aliases={3: 1})
    first_page = jnp.asarray(pages.first_page, jnp.int32)
    lasts = jnp.zeros(0, jnp.int32) if pages.lasts_T is None else pages.lasts_T
    numbers = {"scale": np.float32(scale), "window": np.int64(window or 0), "softcap": np.float32(softcap or 0.0)}
    out_TNH, kept = call(q_TNH, k_TKH, v_TKH, cache, *pages[:3], first_page, sinks, lasts, **numbers)
    return out_TNH, kept


def zeros(library: Library, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
    """An array of zeros of whose memory nothing is resident before it is touched.

    Args:
        library: whose function runs.
        shape: of the array.
        dtype: float32, bfloat16, float16 or a type of one byte.
    """
    made: jax.Array = jax.ffi.ffi_call(library.target("zeros"), jax.ShapeDtypeStruct(shape, dtype))()
    return made
