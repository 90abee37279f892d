"""Which layers share a page table: the page groups of a model. Pure Python.

All pages come from one pool. At any moment a page belongs to one group and holds `page_size` positions of each of the
group's layers. Layers with a sliding window form groups of their own, so that their pages can be given up as soon as
the window has passed them, while full layers keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxserve.models.config import LayerGroup, ModelConfig, layer_groups

LayerLoop = Literal["scan", "switch", "unroll"]


@dataclass(frozen=True)
class PageGroup:
    """Layers that share a page table."""

    window: int | None
    """Positions that a query of these layers sees, its own included; None = all before it."""
    layers: tuple[int, ...]
    """Ascending; the i-th of them uses slot i of each page."""


@dataclass(frozen=True)
class Place:
    """Where a layer is."""

    group: int
    slot: int


@dataclass(frozen=True)
class CacheLayout:
    """The page groups of a model: those without a window first, then by window; groups of one window side by side."""

    groups: tuple[PageGroup, ...]

    @property
    def slots(self) -> int:
        """Layers that a page has room for."""
        return max(len(group.layers) for group in self.groups)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Window of each group: all that the scheduler needs to know."""
        return tuple(group.window for group in self.groups)

    def places(self) -> tuple[Place, ...]:
        """Place of each layer."""
        found = {
            layer: Place(number, slot)
            for number, group in enumerate(self.groups)
            for slot, layer in enumerate(group.layers)
        }
        return tuple(found[layer] for layer in range(len(found)))


def cache_layout(config: ModelConfig) -> CacheLayout:
    """Cut the layers of each window into groups of at most as many layers as the rarest window has.

    One kind of layers gives one group; gpt-oss (12 sliding, 12 full) two; Gemma 3 with 22 sliding and 4 full layers
    seven of at most 4 layers, one of them full. Layers that a scan loops over together stay together where that costs
    no group more: then the scan's body has one page table.
    """
    kinds: dict[int | None, list[tuple[int, ...]]] = {}
    for layers in _looped_together(config):
        kinds.setdefault(config.layers[layers[0]].attention.window, []).append(layers)
    size = min(sum(map(len, runs)) for runs in kinds.values())
    ordered = sorted(kinds.items(), key=lambda item: -1 if item[0] is None else item[0])
    return CacheLayout(tuple(PageGroup(window, layers) for window, runs in ordered for layers in _packed(runs, size)))


def _looped_together(config: ModelConfig) -> Iterator[tuple[int, ...]]:
    """The layers that each member of each period stands for."""
    for group in layer_groups(config, "scan"):
        for member in range(len(group.period)):
            yield tuple(group.layer(repeat, member) for repeat in range(group.repeats))


def _packed(runs: Sequence[tuple[int, ...]], size: int) -> list[tuple[int, ...]]:
    """Groups of at most `size` layers, as few as can be, with runs left whole if possible; first layers ascend."""
    groups: list[tuple[int, ...]] = []
    for run in sorted(runs, key=len, reverse=True):
        fitting = next((i for i, group in enumerate(groups) if len(group) + len(run) <= size), None)
        if fitting is None:
            groups += [run[start : start + size] for start in range(0, len(run), size)]
        else:
            groups[fitting] += run
    layers = sorted(layer for run in runs for layer in run)
    if len(groups) > -(-len(layers) // size):
        groups = [tuple(layers[start : start + size]) for start in range(0, len(layers), size)]
    return sorted(tuple(sorted(group)) for group in groups)


def layer_loops(config: ModelConfig, loop: LayerLoop) -> tuple[LayerGroup, ...]:
    """As `layer_groups`, each cut where the layers of a member go over to another page group.

    So which page table and work list a layer uses is known when the program is compiled, also inside a scan.
    """
    places = cache_layout(config).places()

    def group_of(group: LayerGroup, repeat: int) -> list[int]:
        return [places[group.layer(repeat, member)].group for member in range(len(group.period))]

    loops: list[LayerGroup] = []
    for group in layer_groups(config, "unroll" if loop == "unroll" else "scan"):
        begin = 0
        for repeat in range(1, group.repeats + 1):
            if repeat == group.repeats or group_of(group, repeat) != group_of(group, begin):
                loops.append(replace(group, start=group.layer(begin, 0), repeats=repeat - begin))
                begin = repeat
    return tuple(loops)
