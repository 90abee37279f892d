"""Which stored tensors, or parts of them, each parameter is made of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jaxserve.errors import ModelLoadError
from jaxserve.models.checkpoint import StoredTensor
from jaxserve.models.config import ModelConfig
from jaxserve.models.family import Cut, Family, Source
from jaxserve.models.model import Blueprint, Leaf

_NAMED = 4
"""Tensors that an error message names before it counts."""


@dataclass(frozen=True)
class Piece:
    """A stored tensor, or a part of one."""

    tensor: StoredTensor
    cut: Cut | None
    config: ModelConfig

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part of the piece into `out`, converted to its type."""
        whole = self.tensor.view()
        out[...] = (whole if self.cut is None else self.cut(whole, self.config))[index]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type as stored."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the piece, without opening the file."""
        shape = self.tensor.shape
        try:
            return shape if self.cut is None else self.cut(np.broadcast_to(np.int8(0), shape), self.config).shape
        except (IndexError, ValueError):  # too few axes to cut
            return shape


class Readable(Protocol):
    """A parameter of one layer (or expert), wherever it is stored."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type as stored."""

    def read(self, index: tuple[slice, ...], out: NDArray[Any]) -> None:
        """Copy a part into `out`, converted to its type."""


@dataclass(frozen=True)
class Pieces:
    """What a leaf is put together from: `lead` (layers, experts) pieces of equal shape, in C order."""

    lead: tuple[int, ...]
    pieces: tuple[Readable, ...]

    def read(
        self, index: tuple[slice, ...], out: NDArray[Any], done: Callable[[int], None] = lambda count: None
    ) -> None:
        """Copy a part of the leaf into `out`, converted to its type; `done` is told the bytes of each piece."""
        depth = len(self.lead)
        picked = np.arange(len(self.pieces)).reshape(self.lead)[index[:depth]]
        for place in np.ndindex(picked.shape):
            part = out[(*place, ...)]  # a view, also of a single number
            self.pieces[int(picked[place])].read(index[depth:], part)
            done(part.nbytes)


def match_tensors(plan: Blueprint, family: Family, tensors: dict[str, StoredTensor], model_dir: Path) -> list[Pieces]:
    """The stored pieces of each leaf of the plan, in its order; everything is checked before anything is read.

    Raises:
        ModelLoadError: tensors are missing, left over, or of another shape.
    """
    names = [_tensor_names(leaf, family, plan.config, tensors) for leaf in plan.leaves]
    wanted = {name for _, group in names for name in group}
    missing = sorted(wanted - tensors.keys())
    if missing:
        raise ModelLoadError(f"{model_dir} lacks {listed(missing)}.")
    ignored = [re.compile(pattern) for pattern in _ignored(family, plan.config)]
    surplus = sorted(name for name in tensors.keys() - wanted if not any(p.search(name) for p in ignored))
    if surplus:
        raise ModelLoadError(
            f"{model_dir} holds {listed(surplus)} that a {plan.config.model_type} of this config.json has no use for."
        )
    return [
        _pieces(leaf, family.names[leaf.name], lead, [tensors[name] for name in group], plan.config)
        for leaf, (lead, group) in zip(plan.leaves, names, strict=True)
    ]


def _pieces(
    leaf: Leaf, source: str | Source, lead: tuple[int, ...], tensors: list[StoredTensor], config: ModelConfig
) -> Pieces:
    """The pieces of a leaf.

    Raises:
        ModelLoadError: one of them has another shape than the model wants.
    """
    cut = source.cut if isinstance(source, Source) else None
    pieces = tuple(Piece(tensor, cut, config) for tensor in tensors)
    expected = leaf.value.shape[len(lead) :]
    for piece in pieces:
        if piece.shape != expected:
            where = piece.tensor.name if cut is None else f"the part of {piece.tensor.name} that is {leaf.name}"
            raise ModelLoadError(
                f"{piece.tensor.path}: {where} has shape {list(piece.shape)}, config.json wants {list(expected)}."
            )
    return Pieces(lead, pieces)


def _ignored(family: Family, config: ModelConfig) -> Iterator[str]:
    """Regular expressions of the tensors that may be left over."""
    yield from family.ignored
    if config.tie_embeddings:
        yield from (f"^{re.escape(_name(family, leaf))}$" for leaf in ("embed", "lm_head"))
    if family.more_layers:
        before, after = (re.escape(part) for part in _name(family, "attention_norm.weight").split("{layer}"))
        served = "|".join(map(str, range(config.num_layers)))
        yield rf"^{before}(?!(?:{served})\.)\d+{after[:2]}"


def _name(family: Family, leaf: str) -> str:
    source = family.names[leaf]
    return source.name if isinstance(source, Source) else source


def _tensor_names(
    leaf: Leaf, family: Family, config: ModelConfig, tensors: dict[str, StoredTensor]
) -> tuple[tuple[int, ...], list[str]]:
    """How many layers and experts a leaf stacks, and the checkpoint's names of its parts.

    Checkpoints with tied embeddings may store the table under either name.
    """
    name = _name(family, leaf.name)
    if leaf.name == "embed" and config.tie_embeddings and name not in tensors:
        head = _name(family, "lm_head")
        return (), [head if head in tensors else name]
    lead: tuple[int, ...] = (leaf.value.shape[0],) if leaf.stacked else ()
    experts = leaf.value.shape[len(lead)] if "{expert}" in name else None
    numbers = itertools.product(leaf.layers or (0,), range(experts or 1))
    lead = lead if experts is None else (*lead, experts)
    return lead, [name.format(layer=layer, expert=expert) for layer, expert in numbers]


def listed(names: list[str], kind: str = "tensor") -> str:
    """'tensor a' or 'tensors a, b, c, d and 5 more'."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names[:_NAMED])}{more}"
