"""Which rows of the device's pool of embeddings hold which image. Pure Python; knows neither sequences nor devices.

An encoded image stays until its rows are needed for another: the least recently used goes first, and within a step none
of those that the step reads. A step is launched after all before it, so rows that a later step gives to another image
were read by then.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from jaxserve.config import ImageSizes
from jaxserve.images.types import ImageInput


@dataclass(frozen=True, eq=False)
class Encoding:
    """An image to be encoded, and the rows of the pool that its embeddings go to, in order."""

    image: ImageInput
    rows: array[int]


@dataclass(slots=True)
class _Kept:
    rows: array[int]
    step: int
    """The last step that reads it."""


class ImagePool:
    """Rows 1 .. E - 1 of the pool; row 0 takes what is thrown away.

    A step encodes as many patches as the largest image may have.
    """

    def __init__(self, sizes: ImageSizes) -> None:
        self.encoded = 0
        """Images encoded so far."""
        self.found = 0
        """Images that were wanted and had been encoded."""
        self._size, self._patches, self._tokens = sizes.pool, sizes.patch_buckets[-1], sizes.max_tokens
        self._free = list(range(self._size - 1, 0, -1))
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()
        self._pending: list[Encoding] = []
        self._step, self._budget = 0, self._patches

    def admits(self, image: ImageInput) -> bool:
        """Whether an image is one of those that the sizes were made for."""
        return image.grid[0] * image.grid[1] <= self._patches and image.tokens <= self._tokens

    def begin_step(self) -> None:
        """What is placed from here on is read by another step."""
        self._step += 1
        self._budget = self._patches

    def place(self, key: str, image: ImageInput) -> array[int] | None:
        """The rows of an image for the step being planned; None = not in this step.

        Args:
            key: isolation key: images are shared between requests with equal keys only.
            image: the image; it will be encoded unless it is there.
        """
        kept = self._kept.get((key, image.digest))
        if kept is not None:
            self._kept.move_to_end((key, image.digest))
            self.found += kept.step != self._step
            kept.step = self._step
            return kept.rows
        patches = image.grid[0] * image.grid[1]
        if patches > self._budget < self._patches or not self._make_room(image.tokens):
            return None
        self._budget -= patches
        rows = array("i", self._free[-image.tokens :])
        del self._free[-image.tokens :]
        self._kept[key, image.digest] = _Kept(rows, self._step)
        self._pending.append(Encoding(image, rows))
        self.encoded += 1
        return rows

    def take_encodings(self) -> tuple[Encoding, ...]:
        """What must be encoded before the step that has been planned."""
        pending, self._pending = self._pending, []
        return tuple(pending)

    def forget(self) -> None:
        """Whatever has been launched may not have been executed: nothing is kept."""
        self._free = list(range(self._size - 1, 0, -1))
        self._kept.clear()
        self._pending.clear()

    def check(self) -> None:
        """Verify that rows are conserved.

        Raises:
            RuntimeError: one is lost or in two places.
        """
        rows = [*self._free, *(row for kept in self._kept.values() for row in kept.rows)]
        if sorted(rows) != list(range(1, self._size)):
            raise RuntimeError("a row of the pool of images is lost or taken twice")

    def _make_room(self, count: int) -> bool:
        """Give up the images used least recently until `count` rows are free."""
        idle = self._idle() if len(self._free) < count else iter(())
        gone: list[tuple[str, int]] = []
        spare = len(self._free)
        while spare < count:
            key = next(idle, None)
            if key is None:
                return False
            gone.append(key)
            spare += len(self._kept[key].rows)
        for key in gone:
            self._free.extend(self._kept.pop(key).rows)
        return True

    def _idle(self) -> Iterator[tuple[str, int]]:
        return (key for key, kept in self._kept.items() if kept.step != self._step)
