"""To which size an image is brought before it is cut into patches."""

from __future__ import annotations

import math

from jaxserve.errors import InvalidRequest

LARGEST_RATIO = 200
"""Longer images than this are refused, as Qwen-VL's own preprocessing does: one side would be less than a token."""


def shorter_side(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height with the shorter of both `side` long and the other in proportion, rounded down."""
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def smart_size(width: int, height: int, unit: int, smallest: int, largest: int) -> tuple[int, int]:
    """Width and height in whole units, in about the same proportion, with an area within bounds (Qwen2-VL, 2024).

    Args:
        width: in pixels.
        height: in pixels.
        unit: side of what becomes a token, in pixels.
        smallest: area in pixels at least.
        largest: area in pixels at most.

    Raises:
        InvalidRequest: the image is more than `LARGEST_RATIO` times longer than wide.
    """
    if max(width, height) > LARGEST_RATIO * min(width, height):
        raise InvalidRequest(
            "images", f"an image of {width} x {height} pixels is too long: at most {LARGEST_RATIO} times its width"
        )
    new_width, new_height = (round(side / unit) * unit for side in (width, height))  # 0 is less than the smallest
    if new_width * new_height > largest:
        shrink = math.sqrt(width * height / largest)
        new_width, new_height = (max(unit, int(side / shrink / unit) * unit) for side in (width, height))
    elif new_width * new_height < smallest:
        grow = math.sqrt(smallest / (width * height))
        new_width, new_height = (math.ceil(side * grow / unit) * unit for side in (width, height))
    return _within(new_width, new_height, unit, largest)


def _within(width: int, height: int, unit: int, largest: int) -> tuple[int, int]:
    """Shortens the longer side where the shorter one could not shrink below a unit."""
    if width * height <= largest:
        return width, height
    longest = max(unit, largest // (min(width, height) * unit) * unit)
    return (longest, height) if width > height else (width, longest)
