"""From a directory in hub layout to one whose parameters are an orbax checkpoint, in little memory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxserve.errors import ModelLoadError
from jaxserve.models.loading import Progress, find_pieces, load_config
from jaxserve.models.model import Leaf, plan_model
from jaxserve.models.orbax_store import FLOATS, PARAMS, array_names
from jaxserve.models.orbax_writer import Unwritten, write_store
from jaxserve.models.sharding import make_mesh
from jaxserve.models.sources import Pieces

_COPIED = re.compile(r".+\.(json|jinja|model|tiktoken|txt|md)|(licen[cs]e|notice|use_policy).*", re.IGNORECASE)
_LEFT = re.compile(r".+\.index\.json")


def convert(
    model_dir: Path, out: Path, *, dtype: str | None = None, progress: Progress = lambda done, total: None
) -> None:
    """Write the model of `model_dir` to `out`: parameters as an orbax checkpoint, the other files as they are.

    `out` appears when everything is written; until then its files are in a hidden directory beside it.

    Args:
        model_dir: directory that `load_model` reads.
        out: missing or empty directory.
        dtype: type of the parameters; None keeps every tensor's own where it is a floating-point type of 16 or 32 bits.
        progress: told (bytes written, bytes in all).

    Raises:
        ModelLoadError: `out` is not empty or not local, the model can't be loaded, or writing failed.
    """
    _check_target(out)
    leaves = _unwritten(model_dir, dtype)
    total, done = sum(leaf.nbytes for leaf in leaves.values()), 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    out = Path(os.path.abspath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        try:
            write_store(partial / PARAMS, leaves, written)
        except (ValueError, RuntimeError) as error:
            raise ModelLoadError(f"The checkpoint can't be written to {out}: {str(error).splitlines()[0]}.") from error
        _copy_files(model_dir, partial)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _check_target(out: Path) -> None:
    if re.match(r"[a-z0-9]+:/", str(out)):
        raise ModelLoadError(f"{out} is not a local directory: convert to one, then copy it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelLoadError(f"{out} exists and is not an empty directory.")


def _unwritten(model_dir: Path, dtype: str | None) -> dict[str, Unwritten]:
    """The parameters by their name in the store."""
    plan = plan_model(
        load_config(model_dir),
        mesh=make_mesh((1, 1, 1)),
        dtype=dtype or "float32",
        layer_loop="unroll",
        attention_backend="blocked",
    )
    pairs = zip(plan.leaves, find_pieces(plan, model_dir), strict=True)
    return dict(_lazy(leaf, pieces, keep_types=dtype is None) for leaf, pieces in pairs)


def _lazy(leaf: Leaf, pieces: Pieces, *, keep_types: bool) -> tuple[str, Unwritten]:
    shape, dtype = leaf.value.shape, leaf.value.dtype
    first, *others = {piece.dtype for piece in pieces.pieces}
    if keep_types and not others and {dtype.name, first.name} <= FLOATS:
        dtype = first

    def make() -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        out = np.empty(shape, dtype)
        pieces.read((slice(None),) * len(shape), out)
        return out

    (name,) = array_names(leaf)
    return name, Unwritten(int(np.prod(shape)) * dtype.itemsize, len(shape), make)


def _copy_files(model_dir: Path, out: Path) -> None:
    """Everything small that tells how to use the parameters; `config.json` last."""
    for path in sorted(_companions(model_dir), key=lambda path: path.name == "config.json"):
        target = out / path.relative_to(model_dir)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _companions(model_dir: Path) -> Iterator[Path]:
    for path in model_dir.iterdir():
        if path.is_file() and _COPIED.fullmatch(path.name) and not _LEFT.fullmatch(path.name):
            yield path
    yield from (model_dir / "additional_chat_templates").glob("*.jinja")
