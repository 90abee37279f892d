"""Which layers share a page table: the page groups of a model. Pure Python.

All pages come from one pool. At any moment a page belongs to one group and holds `page_size` positions of each of the
group's layers. Layers with a sliding window form groups of their own, so that their pages can be given up as soon as
the window has passed them, while full layers keep theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxserve.models.config import ModelConfig


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
    """Cut the layers of each window into groups of equal size: as many layers as the rarest window has.

    One kind of layers gives one group; gpt-oss (12 sliding, 12 full) two; Gemma 3 with 22 sliding and 4 full layers
    seven of at most 4 layers, one of them full.
    """
    kinds: dict[int | None, list[int]] = {}
    for number, layer in enumerate(config.layers):
        kinds.setdefault(layer.attention.window, []).append(number)
    size = min(len(layers) for layers in kinds.values())
    ordered = sorted(kinds.items(), key=lambda item: -1 if item[0] is None else item[0])
    return CacheLayout(
        tuple(
            PageGroup(window, tuple(layers[start : start + size]))
            for window, layers in ordered
            for start in range(0, len(layers), size)
        )
    )
