"""Images on their way to the device: one packed int32 buffer each, as `batch.py` has one for a step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxserve.config import EngineConfig
from jaxserve.engine.batch import Int32Array, Views
from jaxserve.engine.image_pool import Encoding
from jaxserve.engine.plan import Plan, PlannedRow
from jaxserve.engine.sequence import Sequence
from jaxserve.models import Patches, VisionSpec, patch_grid, rotary_positions

_CHANNELS = 3


@dataclass(frozen=True)
class ImageLayout:
    """Static shape of one bucket's buffer: where each part of an image lies."""

    vision: VisionSpec
    patches: int
    """P."""

    @property
    def embeddings(self) -> int:
        """M: of the tower, padding included."""
        return self.vision.embeddings(self.patches)

    @property
    def pixel_bytes(self) -> int:
        """Of all patches."""
        return self.patches * _CHANNELS * self.vision.patch**2

    @cached_property
    def sizes(self) -> dict[str, int]:
        """int32 words of each part, in order."""
        return {
            "size": 2,
            "normalisation": 1 + 2 * _CHANNELS,
            "rows": self.patches,
            "columns": self.patches,
            "windows": self.patches,
            "targets": self.embeddings,
            "pixels": -(-self.pixel_bytes // 4),
        }

    @cached_property
    def size(self) -> int:
        """int32 words of the whole buffer."""
        return sum(self.sizes.values())

    def pack(self, encoding: Encoding) -> Int32Array:
        """An image and the rows of the pool for its embeddings."""
        image, spec = encoding.image, self.vision
        grid = patch_grid(spec, *image.grid)
        order = grid.order_P
        pixels = np.frombuffer(image.patches, np.uint8).reshape(len(order), -1)[order]
        targets = np.zeros(self.embeddings, np.int32)
        extra = spec.extra_tokens
        targets[:extra] = encoding.rows[:extra]
        targets[extra + grid.embeddings_M] = encoding.rows[extra:]
        parts = {
            "size": np.array(image.grid, np.int32),
            "normalisation": np.array(image.normalisation, np.float32).view(np.int32),
            "rows": _padded(grid.rows_P, self.patches, 0),
            "columns": _padded(grid.columns_P, self.patches, 0),
            "windows": _padded(grid.windows_P, self.patches, -1),
            "targets": targets,
            "pixels": _padded(pixels.reshape(-1), 4 * self.sizes["pixels"], 0).view(np.int32),
        }
        return np.concatenate([parts[name] for name in self.sizes])

    def unpack(self, words: jax.Array) -> tuple[Patches, jax.Array]:
        """The patches, normalised, and the row of the pool that each embedding goes to; traced."""
        ends = np.cumsum(list(self.sizes.values()))
        parts = dict(zip(self.sizes, jnp.split(words, ends[:-1].tolist()), strict=True))
        patches = Patches(
            self._normalised(parts["pixels"], lax.bitcast_convert_type(parts["normalisation"], jnp.float32)),
            parts["rows"],
            parts["columns"],
            parts["windows"],
            parts["size"],
        )
        return patches, parts["targets"]

    def _normalised(self, words: jax.Array, factors: jax.Array) -> jax.Array:
        """float32 [P, inputs]: (pixel * factor - mean) / deviation, each frame the same."""
        spec = self.vision
        pixels = lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: self.pixel_bytes]
        area = spec.patch**2
        numbers_PCA = pixels.reshape(self.patches, _CHANNELS, area).astype(jnp.float32) * factors[0]
        means, deviations = jnp.split(factors[1:], 2)
        numbers_PCA = (numbers_PCA - means[:, None]) / deviations[:, None]
        frames = jnp.broadcast_to(numbers_PCA[:, :, None], (self.patches, _CHANNELS, spec.frames, area))
        return frames.reshape(self.patches, prod(frames.shape[1:]))


class ImageEncoder:
    """Images into the buffers of their buckets, and their places in that of a step.

    Args:
        layouts: the buckets there are, ascending; at least one.
    """

    def __init__(self, layouts: tuple[ImageLayout, ...]) -> None:
        self._layouts = layouts
        self._merge = layouts[0].vision.merge
        self._rotary: WeakKeyDictionary[Sequence, tuple[Int32Array, int]] = WeakKeyDictionary()

    def write(self, plan: Plan, views: Views[Int32Array]) -> None:
        """Which packed tokens take an embedding from the pool, and where they are on the axes of the rotation."""
        token = 0
        for row in plan.rows:
            end = row.start + row.count
            for image in row.images:
                first, last = max(image.start, row.start), min(image.start + len(image.rows), end)
                place = slice(token + first - row.start, token + last - row.start)
                if views.image_rows_T is not None:
                    views.image_rows_T[place] = image.rows[first - image.start : last - image.start]
                if views.image_lasts_T is not None:
                    views.image_lasts_T[place] = image.start + len(image.rows) - 1
            if views.rotary_AT is not None:
                views.rotary_AT[:, token : token + row.count] = self._positions(row)
            token += row.count

    def _positions(self, row: PlannedRow) -> Int32Array:
        """[axes or 1, count]."""
        request, positions = row.sequence.request, np.arange(row.start, row.start + row.count, dtype=np.int32)
        if not request.images:
            return positions[None]
        if row.sequence not in self._rotary:
            placed = [(one.start, *one.image.grid) for one in request.images]
            self._rotary[row.sequence] = rotary_positions(len(request.prompt), placed, self._merge)
        known_AT, later = self._rotary[row.sequence]
        prompt_AT = known_AT[:, row.start : row.start + row.count]
        rest = positions[prompt_AT.shape[1] :] + later
        return np.concatenate([prompt_AT, np.broadcast_to(rest, (len(known_AT), len(rest)))], axis=1)

    def pack(self, encoding: Encoding) -> Int32Array:
        """An image in the smallest bucket that holds it.

        Raises:
            ValueError: it has more patches than any bucket.
        """
        count = encoding.image.grid[0] * encoding.image.grid[1]
        for layout in self._layouts:
            if count <= layout.patches:
                return layout.pack(encoding)
        raise ValueError(f"an image of {count} patches exceeds every bucket")


def image_layouts(config: EngineConfig, vision: VisionSpec | None) -> tuple[ImageLayout, ...]:
    """One layout for each bucket of patches, ascending; none for a model of text."""
    if config.images is None or vision is None:
        return ()
    return tuple(ImageLayout(vision, patches) for patches in config.images.patch_buckets)


def _padded(array: np.ndarray, length: int, fill: int) -> np.ndarray:
    return np.concatenate([array, np.full(length - len(array), fill, array.dtype)])
