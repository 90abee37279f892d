"""Which stored tensors, or parts of them, each parameter is made of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jaxserve.errors import ModelLoadError
from jaxserve.models.checkpoint import StoredTensor
from jaxserve.models.config import ModelConfig
from jaxserve.models.family import Cut, Family, Names, Source
from jaxserve.models.hub_quantization import STRAYS, StoredWeights, source_name

if TYPE_CHECKING:
    from jaxserve.models.model import Blueprint, Leaf

FLOATS = frozenset({"float64", "float32", "bfloat16", "float16"})
"""Types of unquantised tensors, which are converted into the model's."""
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
        part = self._cut(self._whole())[index]
        if self.tensor.fetch(part):
            part = self._cut(self._whole())[index]
        out[...] = part

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type as stored."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the piece, without opening the file."""
        shape = self._whole_shape()
        try:
            return self._cut(np.broadcast_to(np.int8(0), shape)).shape
        except (IndexError, ValueError):  # too few axes to cut
            return shape

    def _cut(self, whole: NDArray[Any]) -> NDArray[Any]:
        return whole if self.cut is None else self.cut(whole, self.config)

    def _whole(self) -> NDArray[Any]:
        return self.tensor.view()

    def _whole_shape(self) -> tuple[int, ...]:
        return self.tensor.shape


@dataclass(frozen=True)
class Codes(Piece):
    """The codes of a quantised weight; those of floating-point types as bytes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type as held."""
        return np.dtype(np.int8 if self.tensor.dtype == np.int8 else np.uint8)

    def _whole(self) -> NDArray[Any]:
        return self.tensor.view().view(self.dtype)


@dataclass(frozen=True)
class Scales(Piece):
    """The scales of a quantised weight, of each row its own."""

    codes: StoredTensor
    stored: StoredWeights

    def check(self) -> None:
        """Compare shapes.

        Raises:
            ModelLoadError: the scales are not those of the weight.
        """
        expected = self._stored_shapes()
        if self.tensor.shape not in expected:
            raise ModelLoadError(
                f"{self.tensor.path}: {self.tensor.name} has shape {list(self.tensor.shape)}, its weight of shape "
                f"{list(self.codes.shape)} wants {list(expected[0])}."
            )

    def _stored_shapes(self) -> list[tuple[int, ...]]:
        *lead, outputs, inputs = self.codes.shape
        rows, block = self.stored.rows, self.stored.format.block
        if rows == "all":
            return [(), (1,)]
        if block is None:
            return [(*lead, outputs, 1), (*lead, outputs)]
        return [(*lead, -(-outputs // rows), -(-inputs // block))]

    def _whole_shape(self) -> tuple[int, ...]:
        *lead, outputs, inputs = self.codes.shape
        block = self.stored.format.block
        return (*lead, outputs) if block is None else (*lead, outputs, -(-inputs // block))

    def _whole(self) -> NDArray[Any]:
        shape, scales, rows = self._whole_shape(), self.tensor.view(), self.stored.rows
        if rows == "all":
            return np.broadcast_to(scales.reshape(()), shape)
        if self.stored.format.block is None:
            return scales.reshape(shape)
        return np.repeat(scales, rows, axis=-2)[..., : shape[-2], :] if rows > 1 else scales


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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type as stored, of the first piece."""
        return self.pieces[0].dtype

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


def match_tensors(
    plan: Blueprint,
    family: Family,
    tensors: dict[str, StoredTensor],
    model_dir: Path,
    stored: StoredWeights | None = None,
) -> list[Pieces]:
    """The stored pieces of each leaf of the plan, in its order; everything is checked before anything is read.

    Args:
        plan: a model whose weights are held as they are stored.
        family: has the tensors' names.
        tensors: the checkpoint's.
        model_dir: for error messages.
        stored: how quantised weights are stored, if any are.

    Raises:
        ModelLoadError: tensors are missing, left over, of another shape or type.
    """
    coded, tensors = plan.coded(), {family.canonical(name): tensor for name, tensor in tensors.items()}
    matches = [
        _match(leaf, plan.config, family, tensors, stored if leaf.key in coded or _is_scale(leaf) else None)
        for leaf in plan.leaves
    ]
    wanted = set()
    for match in matches:
        match.check_types(tensors)
        wanted |= set(match.names)
    missing = sorted(wanted - tensors.keys())
    if missing:
        raise ModelLoadError(f"{model_dir} lacks {listed(missing)}.")
    ignored = [re.compile(pattern) for pattern in _ignored(family, plan.config, stored)]
    surplus = sorted(name for name in tensors.keys() - wanted if not any(p.search(name) for p in ignored))
    if surplus:
        raise ModelLoadError(
            f"{model_dir} holds {listed(surplus)} that a {plan.config.model_type} of this config.json has no use for."
        )
    return [match.pieces(tensors, plan.config) for match in matches]


@dataclass(frozen=True)
class _Match:
    """A leaf and the names of the tensors it is made of."""

    leaf: Leaf
    stored: StoredWeights | None
    """How its codes or scales are stored; None for what is not quantised."""
    cut: Cut | None
    lead: tuple[int, ...]
    names: list[str]
    codes: list[str]
    """Of scales: the names of their weights."""

    def check_types(self, tensors: dict[str, StoredTensor]) -> None:
        """Whether what should be quantised is, and nothing else.

        Raises:
            ModelLoadError: a tensor has a type that `config.json` doesn't promise.
        """
        for tensor in (tensors[name] for name in self.names if name in tensors):
            kind = tensor.dtype.name
            if self.stored is None or (self.codes and self.stored.format.scale == "float32"):
                if kind not in FLOATS:
                    raise ModelLoadError(
                        f"{tensor.path}: {tensor.name} is {kind}, a quantised type that config.json does not announce "
                        "for it."
                    )
            elif kind != self.stored.dtype:
                raise ModelLoadError(
                    f"{tensor.path}: {tensor.name} is {kind}, quantization_config of config.json promises "
                    f"{self.stored.dtype}."
                )

    def pieces(self, tensors: dict[str, StoredTensor], config: ModelConfig) -> Pieces:
        """The pieces of the leaf.

        Raises:
            ModelLoadError: one of them has another shape than the model wants.
        """
        pieces = tuple(self._piece(place, tensors, config) for place in range(len(self.names)))
        expected = self.leaf.value.shape[len(self.lead) :]
        for piece in pieces:
            if isinstance(piece, Scales):
                piece.check()
            if piece.shape != expected:
                name = piece.tensor.name
                where = name if self.cut is None else f"the part of {name} that is {self.leaf.name}"
                raise ModelLoadError(
                    f"{piece.tensor.path}: {where} has shape {list(piece.shape)}, config.json wants {list(expected)}."
                )
        return Pieces(self.lead, pieces)

    def _piece(self, place: int, tensors: dict[str, StoredTensor], config: ModelConfig) -> Piece:
        tensor = tensors[self.names[place]]
        if self.stored is None:
            return Piece(tensor, self.cut, config)
        if not self.codes or self.stored.experts_only:
            return Codes(tensor, self.cut, config)
        return Scales(tensor, self.cut, config, tensors[self.codes[place]], self.stored)


def _match(
    leaf: Leaf, config: ModelConfig, family: Family, tensors: dict[str, StoredTensor], stored: StoredWeights | None
) -> _Match:
    """Find the tensors' names. Checkpoints with tied embeddings may store the table under either name."""
    names = family.names if stored is None or not stored.experts_only else family.packed
    cut, pattern = _source(names, leaf.name if leaf.name in names else leaf.name.removesuffix("_scale"))
    if leaf.name == "embed" and config.tie_embeddings and pattern not in tensors:
        head = source_name(family.names, "lm_head")
        pattern = head if head in tensors else pattern
    lead: tuple[int, ...] = (leaf.value.shape[0],) if leaf.stacked else ()
    experts = leaf.value.shape[len(lead)] if "{expert}" in pattern else None
    numbers = list(itertools.product(leaf.layers or (0,), range(experts or 1)))
    found = [pattern.format(layer=layer, expert=expert) for layer, expert in numbers]
    lead = lead if experts is None else (*lead, experts)
    if stored is None or not _is_scale(leaf):
        return _Match(leaf, stored, cut, lead, found, [])
    scales = found if stored.experts_only else [name.removesuffix("weight") + stored.scale for name in found]
    return _Match(leaf, stored, cut, lead, scales, found)


def _is_scale(leaf: Leaf) -> bool:
    return leaf.name.endswith("_scale")


def _source(names: Names, leaf: str) -> tuple[Cut | None, str]:
    source = names[leaf]
    return (source.cut if isinstance(source, Source) else None), source_name(names, leaf)


def _ignored(family: Family, config: ModelConfig, stored: StoredWeights | None) -> Iterator[str]:
    """Regular expressions of the tensors that may be left over."""
    yield from family.ignored
    if stored is not None:
        yield from STRAYS
    if config.tie_embeddings:
        yield from (f"^{re.escape(source_name(family.names, leaf))}$" for leaf in ("embed", "lm_head"))
    if family.more_layers:
        norm = source_name(family.names, "attention_norm.weight")
        before, after = (re.escape(part) for part in norm.split("{layer}"))
        served = "|".join(map(str, range(config.num_layers)))
        yield rf"^{before}(?!(?:{served})\.)\d+{after[:2]}"


def listed(names: list[str], kind: str = "tensor") -> str:
    """'tensor a' or 'tensors a, b, c, d and 5 more'."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names[:_NAMED])}{more}"
