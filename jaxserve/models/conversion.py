"""From a directory in hub layout to one whose parameters are an orbax checkpoint, in little memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import ModelConfig
from jaxserve.models.config_file import load_config
from jaxserve.models.loading import Progress, find_pieces
from jaxserve.models.model import Blueprint, Leaf, plan_model
from jaxserve.models.orbax_store import FLOATS, PARAMS, array_names
from jaxserve.models.orbax_writer import Unwritten, write_store
from jaxserve.models.remote import upload, url_of
from jaxserve.models.sharding import make_mesh
from jaxserve.models.sources import Pieces
from jaxserve.models.weight_choice import Quantize, WeightMode, choose_weights

_COPIED = re.compile(r"(?!.*\.index\.json).+\.(json|jinja|model|tiktoken|txt|md)|(licen[cs]e|notice).*", re.IGNORECASE)
_INT8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False, "strategy": "channel"},
        }
    },
    "ignore": ["lm_head"],
}
"""`quantization_config` of weights that were quantised while they were converted."""


def convert(
    model_dir: Path,
    out: Path,
    *,
    dtype: str | None = None,
    weights: WeightMode = "keep",
    quantize: Quantize | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write the model of `model_dir` to `out`: parameters as an orbax checkpoint, the other files as they are.

    `out` appears when everything is written; until then its files are in a hidden directory beside it.

    Args:
        model_dir: directory that `load_model` reads.
        out: missing or empty directory, or a URL behind which nothing is (written to a temporary directory first).
        dtype: type of what is not quantised; None keeps every tensor's own if that has 16 or 32 bits.
        weights: see `choose_weights`.
        quantize: see `choose_weights`.
        progress: told (bytes written, bytes in all).

    Raises:
        ModelLoadError: `out` is not empty, the model can't be loaded, or writing failed.
    """
    url = url_of(out)
    if url is not None:
        with tempfile.TemporaryDirectory(prefix="jaxserve-") as scratch:
            local = Path(scratch) / "model"
            convert(model_dir, local, dtype=dtype, weights=weights, quantize=quantize, progress=progress)
            upload(local, url)
        return
    _check_target(out)
    plan = _plan(choose_weights(load_config(model_dir), weights, quantize), dtype)
    pairs = zip(plan.leaves, find_pieces(plan, model_dir), strict=True)
    leaves = dict(_unwritten(leaf, pieces, keep_types=dtype is None) for leaf, pieces in pairs)
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
            cause = str(error).split(" [")[0].rsplit(": ", 1)[-1]  # behind what tensorstore was doing
            raise ModelLoadError(f"The checkpoint can't be written to {out}: {cause}.") from error
        _copy_files(model_dir, partial)
        _write_config(model_dir, partial, weights, quantize)
        find_pieces(_plan(load_config(partial), dtype), partial)  # whether the result is what config.json says
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _check_target(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelLoadError(f"{out} exists and is not an empty directory.")


def _plan(config: ModelConfig, dtype: str | None) -> Blueprint:
    """The model layer by layer, on one device."""
    return plan_model(
        config,
        mesh=make_mesh((1, 1, 1)),
        dtype=dtype or "float32",
        layer_loop="unroll",
    )


def _unwritten(leaf: Leaf, pieces: Pieces, *, keep_types: bool) -> tuple[str, Unwritten]:
    """A parameter's name in the store, and how it is made."""
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
    """Everything small that tells how to use the parameters, but for `config.json`."""
    files = [
        path
        for path in model_dir.iterdir()
        if path.is_file() and path.name != "config.json" and _COPIED.fullmatch(path.name)
    ]
    for path in (*files, *(model_dir / "additional_chat_templates").glob("*.jinja")):
        target = out / path.relative_to(model_dir)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _write_config(model_dir: Path, out: Path, weights: WeightMode, quantize: Quantize | None) -> None:
    """`config.json`, which says how weights are quantised now."""
    source, target = model_dir / "config.json", out / "config.json"
    if weights == "keep" and quantize is None:
        shutil.copyfile(source, target)
        return
    fields = json.loads(source.read_text(encoding="utf-8"))
    fields.pop("quantization_config", None)
    if quantize is not None:
        fields["quantization_config"] = _INT8
    target.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
