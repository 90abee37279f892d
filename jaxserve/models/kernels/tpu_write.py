"""Writes new rows into their pages in place, on TPU: tile by tile of 16 positions, read, changed and written back.

Rows of two positions share the words of a 16-bit tile, so a lone row can't be written. Several tiles are on their way
at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxserve.models.kernels.tpu_work import TILE, Tiles

_SLOTS = 8
"""Tiles in VMEM."""
_AHEAD = 4
"""Tiles that are read ahead; the other slots are being written."""


def write_rows(
    pages: jax.Array, rows_TKW: jax.Array, tiles: Tiles, first_page: jax.Array | int, *, interpret: bool = False
) -> jax.Array:
    """Put each token's rows into its page, in place where `pages` is donated.

    Args:
        pages: [S*P, K, page, W].
        rows_TKW: one row for each head.
        tiles: where they belong.
        first_page: of the layer.
        interpret: without a TPU, slowly.
    """
    tokens, kv_heads, width = rows_TKW.shape
    first = jnp.asarray(first_page, jnp.int32).reshape(1)
    written: jax.Array = pl.pallas_call(
        partial(_body, kv_heads, width),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=7,
            grid=(1,),
            in_specs=[pl.BlockSpec(memory_space=pltpu.VMEM), pl.BlockSpec(memory_space=pl.ANY)],
            out_specs=pl.BlockSpec(memory_space=pl.ANY),
            scratch_shapes=[
                pltpu.VMEM((_SLOTS, kv_heads, TILE, width), pages.dtype),
                pltpu.SemaphoreType.DMA((_SLOTS,)),
                pltpu.SemaphoreType.DMA((_SLOTS,)),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(pages.shape, pages.dtype),
        input_output_aliases={8: 0},
        interpret=interpret,
        name="write_kv_pages",
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_vmem(tokens * kv_heads * width * 4)),
    )(first, *tiles, rows_TKW.reshape(tokens, kv_heads * width).astype(jnp.float32), pages)
    return written


def _vmem(rows: int) -> int:
    return 2 * rows + (16 << 20)


def _body(
    kv_heads: int,
    width: int,
    first: Any,
    count: Any,
    pages: Any,
    offsets: Any,
    tokens: Any,
    begins: Any,
    lengths: Any,
    rows: Any,
    cache_in: Any,
    cache: Any,
    held: Any,
    read: Any,
    written: Any,
) -> None:
    def place(index: jax.Array) -> Any:
        offset = pl.multiple_of(offsets[index], TILE)
        return cache.at[first[0] + pages[index], :, pl.ds(offset, TILE), :]

    def reading(index: jax.Array) -> Any:
        slot = lax.rem(index, _SLOTS)
        return pltpu.make_async_copy(place(index), held.at[slot], read.at[slot])

    def writing(index: jax.Array) -> Any:
        slot = lax.rem(index, _SLOTS)
        return pltpu.make_async_copy(held.at[slot], place(index), written.at[slot])

    def tile(index: jax.Array, _: None) -> None:
        @pl.when(index + _AHEAD < count[0])
        def _next() -> None:
            @pl.when(index + _AHEAD >= _SLOTS)
            def _free() -> None:
                writing(index + _AHEAD - _SLOTS).wait()

            reading(index + _AHEAD).start()

        reading(index).wait()
        _merge(kv_heads, width, held.at[lax.rem(index, _SLOTS)], rows, tokens[index], begins[index], lengths[index])
        writing(index).start()

    del cache_in  # the same memory as `cache`
    lax.fori_loop(0, jnp.minimum(_AHEAD, count[0]), lambda index, _: reading(index).start(), None)
    lax.fori_loop(0, count[0], tile, None)
    lax.fori_loop(jnp.maximum(count[0] - _SLOTS, 0), count[0], lambda index, _: writing(index).wait(), None)


def _merge(
    kv_heads: int, width: int, tile: Any, rows: Any, token: jax.Array, begin: jax.Array, length: jax.Array
) -> None:
    """Replace rows begin .. begin + length - 1 of a tile [K, 16, W] by those of the tokens."""
    index = lax.broadcasted_iota(jnp.int32, (TILE, width), 0)

    def one(number: jax.Array, _: None) -> None:
        new = rows[pl.ds(token + number, 1), :]
        for head in range(kv_heads):
            row = jnp.broadcast_to(new[:, head * width : (head + 1) * width], (TILE, width))
            old = tile[head].astype(jnp.float32)
            tile[head] = jnp.where(index == begin + number, row, old).astype(tile.dtype)

    lax.fori_loop(0, length, one, None)
