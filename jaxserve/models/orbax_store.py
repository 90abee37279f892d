"""Parameters in an orbax checkpoint: how they are named and read, shard by shard.

A model directory with a store holds, beside `config.json` and the tokenizer's files, the directory `params`: a flat
tree of arrays (OCDBT, zarr 2) under this package's own names, layer by layer ('layers.3.attention.q_proj.weight',
'embed'). So one store fits every mesh and both layer loops, and a quantised parameter is nothing special: its leaves
are arrays like the others. Format: orbax.readthedocs.io and google.github.io/tensorstore (drivers zarr and ocdbt).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from jaxserve.errors import ModelLoadError
from jaxserve.models.sources import Pieces, listed

if TYPE_CHECKING:
    from jaxserve.models.model import Blueprint, Leaf

PARAMS = "params"
"""Directory of the store inside a model directory."""
REMOTE = "params.url"
"""File that stands for it where the store is elsewhere: its URL."""
FLOATS = frozenset({"float32", "bfloat16", "float16"})
"""Types that are converted into each other while loading."""


@dataclass(frozen=True)
class StoredArray:
    """One array of a store; nothing is read until `read`."""

    name: str
    where: str
    """The store, as error messages name it."""
    array: ts.TensorStore

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type as stored."""
        return np.dtype(self.array.dtype.numpy_dtype)

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part into `out`, converted to its type, chunk by chunk.

        Raises:
            ModelLoadError: the files are damaged.
        """
        part = self.array[index] if index else self.array
        try:
            ts.array(out).write(ts.cast(part, out.dtype) if out.dtype != self.dtype else part).result()
        except (ValueError, RuntimeError, OSError) as error:
            raise _damaged(self.where, self.name, error) from None


def has_store(model_dir: Path) -> bool:
    """Whether the parameters of this directory are an orbax checkpoint (perhaps an incomplete one)."""
    return (model_dir / PARAMS).is_dir() or (model_dir / REMOTE).is_file()


def open_store(model_dir: Path) -> dict[str, StoredArray]:
    """All arrays of a directory's store by name; only their metadata is read.

    Raises:
        ModelLoadError: it is not an orbax checkpoint, writing it was interrupted, or its files are damaged.
    """
    remote = model_dir / REMOTE
    where = remote.read_text(encoding="utf-8").strip() if remote.is_file() else (model_dir / PARAMS).resolve().as_uri()
    shown = where.removeprefix("file://")
    metadata = _read_metadata(where, shown)
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    context = ts.Context({"cache_pool#ocdbt": {"total_bytes_limit": 100 << 20}})
    opened = {name: ts.open(_spec(where, name, driver), context=context) for name in _names(metadata, shown)}
    arrays = {}
    for name, future in opened.items():
        try:
            arrays[name] = StoredArray(name, shown, future.result())
        except (ValueError, RuntimeError, OSError) as error:
            raise _damaged(shown, name, error) from None
    return arrays


def match_arrays(plan: Blueprint, arrays: dict[str, StoredArray], model_dir: Path) -> list[Pieces]:
    """The stored arrays of each leaf of the plan, in its order; everything is checked before anything is read.

    Raises:
        ModelLoadError: parameters are missing, left over, of another shape, or of a type that can't be converted.
    """
    names = [array_names(leaf) for leaf in plan.leaves]
    wanted = {name for group in names for name in group}
    if missing := sorted(wanted - arrays.keys()):
        raise ModelLoadError(f"{model_dir} lacks {listed(missing, 'parameter')}.")
    if surplus := sorted(arrays.keys() - wanted):
        raise ModelLoadError(
            f"{model_dir} holds {listed(surplus, 'parameter')} that a {plan.config.model_type} of this config.json has "
            "no use for."
        )
    return [
        _pieces(leaf, [arrays[name] for name in group], model_dir)
        for leaf, group in zip(plan.leaves, names, strict=True)
    ]


def array_names(leaf: Leaf) -> list[str]:
    """Names in the store of what a leaf holds, one a layer."""
    return [leaf.name] if leaf.layers is None else [f"layers.{layer}.{leaf.name}" for layer in leaf.layers]


def _pieces(leaf: Leaf, arrays: Sequence[StoredArray], model_dir: Path) -> Pieces:
    lead = leaf.value.shape[:1] if leaf.stacked else ()
    shape, dtype = leaf.value.shape[len(lead) :], leaf.value.dtype.name
    for array in arrays:
        if array.shape != shape:
            raise ModelLoadError(
                f"{model_dir}: parameter {array.name} has shape {list(array.shape)}, config.json wants {list(shape)}."
            )
        if array.dtype.name != dtype and not {array.dtype.name, dtype} <= FLOATS:
            raise ModelLoadError(f"{model_dir}: parameter {array.name} is stored as {array.dtype}, not as {dtype}.")
    return Pieces(lead, tuple(arrays))


def _read_metadata(where: str, shown: str) -> dict[str, Any]:
    """orbax's description of the tree, which it writes after the arrays."""
    try:
        files = ts.KvStore.open(where + "/").result()
        found = {name: files.read(name).result() for name in ("_METADATA", "manifest.ocdbt", "_CHECKPOINT_METADATA")}
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelLoadError(f"{shown} can't be read: {_reason(error)}.") from None
    for name, result in found.items():
        if result.state != "value":
            raise ModelLoadError(
                f"{shown} is not an orbax checkpoint, or writing or copying it was interrupted: it has no {name}."
            )
    try:
        metadata = json.loads(found["_METADATA"].value)
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise ModelLoadError(f"{shown} is damaged: its _METADATA is not a JSON object.")
    return metadata


def _names(metadata: dict[str, Any], shown: str) -> list[str]:
    """Names of the arrays: the keys on the way to them, joined by dots."""
    try:
        entries = metadata["tree_metadata"].values()
        return [".".join(str(part["key"]) for part in entry["key_metadata"]) for entry in entries]
    except (KeyError, TypeError, AttributeError):
        raise ModelLoadError(f"{shown} is damaged: its _METADATA describes no tree of arrays.") from None


def _spec(where: str, name: str, driver: str) -> dict[str, Any]:
    """What tensorstore needs to open one array of an orbax checkpoint."""
    return {
        "driver": driver,
        "kvstore": {"driver": "ocdbt", "base": where + "/", "path": name + "/", "cache_pool": "cache_pool#ocdbt"},
        "recheck_cached_data": False,
        "recheck_cached_metadata": False,
        "fill_missing_data_reads": False,
    }


def _damaged(where: str, name: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(f"{where} is damaged: parameter {name} can't be read ({_reason(error)}).")


def _reason(error: Exception) -> str:
    """The first sentence of tensorstore's report, which goes on with its own source lines."""
    return str(error).split(" [")[0].split("\n")[0].rstrip(". ")
