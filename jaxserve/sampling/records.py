"""Records that travel between host and device as int32 words: a structured NumPy type says what lies where.

The host reads and writes them by field name through a view of the words, the device through `unpack` and `pack`. Fields
are int32, uint32 or float32 numbers or vectors; floats keep their bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32

Record = np.dtype[np.void]


def num_words(record: Record) -> int:
    """int32 words of a record."""
    return record.itemsize // 4


def unpack(words: Int32[Array, "*batch W"], record: Record) -> dict[str, Array]:
    """Fields by name, each [..., *its shape], of int32 words [..., num_words]."""
    parts = {}
    for name in record.names or ():
        kind, offset = record[name], _offset(record, name)
        flat = words[..., offset : offset + kind.itemsize // 4]
        parts[name] = _typed(flat.reshape(*words.shape[:-1], *kind.shape), kind.base)
    return parts


def pack(parts: Mapping[str, Array], record: Record) -> Int32[Array, "N W"]:
    """int32 words [N, num_words] of the fields of N records."""
    columns = [parts[name].reshape(parts[name].shape[0], -1) for name in record.names or ()]
    return jnp.concatenate([_typed(column, np.dtype(np.int32)) for column in columns], axis=1)


def _offset(record: Record, name: str) -> int:
    assert record.fields is not None
    return record.fields[name][1] // 4


def _typed(x: jax.Array, kind: np.dtype[np.generic]) -> jax.Array:
    return x if x.dtype == kind else lax.bitcast_convert_type(x, kind)
