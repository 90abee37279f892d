"""From a tower and the options to the static sizes of images: buckets of patches, rows of the pool."""

from __future__ import annotations

from dataclasses import dataclass

from jaxserve.config import ImageSizes
from jaxserve.errors import ModelLoadError

_SMALLEST_BUCKET = 256
"""Patches: an image of 224 x 224 pixels in patches of 14."""
_GROWTH = 4
"""From bucket to bucket: half as wide and half as high. Each is a program to compile, and padding costs little beside
attention, which is quadratic."""


@dataclass(frozen=True)
class VisionFacts:
    """What sizing needs to know of a tower."""

    fixed: tuple[int, int] | None
    """Patches and embeddings of every image, where the tower takes only one size."""
    merged: int
    """Patches that become one embedding."""
    block: int
    """What a number of patches must be a multiple of."""
    row_bytes: int
    """Bytes of one row of the pool."""
    patch_bytes: int
    """Bytes of temporaries for each patch (estimated)."""
    rotary_axes: int
    whole: bool = False
    """The decoder reads an image in one piece."""


def image_sizes(facts: VisionFacts, max_tokens: int, pool: int | None, context: int, step_tokens: int) -> ImageSizes:
    """Fixes every size that images have.

    Args:
        facts: of the tower.
        max_tokens: of one image at most.
        pool: embeddings that the device holds; None = four of the largest images, and what any step may need.
        context: tokens of a sequence at most.
        step_tokens: tokens of a step at most.

    Raises:
        ModelLoadError: the pool is too small for a step.
    """
    if facts.fixed is not None:
        patches, largest = facts.fixed
        buckets: tuple[int, ...] = (patches,)
    else:
        largest = min(max_tokens, max(1, context - 1))
        buckets = _buckets(largest * facts.merged, facts.block)
    needed = step_tokens + 2 * largest + 1
    rows = max(needed, 4 * largest + 1) if pool is None else pool + 1
    if rows < needed:
        raise ModelLoadError(
            f"--image-cache-tokens {pool} is less than the {needed - 1} that one step may need: its tokens, and the "
            "rest of an image at either end"
        )
    return ImageSizes(rows, buckets, largest, facts.rotary_axes, facts.whole)


def least_step(facts: VisionFacts, seqs: int, page: int) -> int:
    """Tokens that a step must take so that images that are read in one piece always have their turn: those of an
    image, what is before and behind it in its pages, and one for every other sequence."""
    if not facts.whole or facts.fixed is None:
        return 0
    return facts.fixed[1] + 2 * (page - 1) + seqs - 1


def _buckets(largest: int, block: int) -> tuple[int, ...]:
    """Numbers of patches, multiples of a block, each four times the one before it, the last enough for `largest`."""
    sizes = []
    size = _SMALLEST_BUCKET
    while size < largest:
        sizes.append(-(-size // block) * block)
        size *= _GROWTH
    return (*sizes, -(-largest // block) * block)
