"""Images into prompts: one placeholder for each image becomes as many as the image has tokens."""

from __future__ import annotations

from collections.abc import Sequence

from jaxserve.errors import InvalidRequest
from jaxserve.images.types import ImageInput, PlacedImage


def expand(
    ids: Sequence[int], images: Sequence[ImageInput], token: int
) -> tuple[tuple[int, ...], tuple[PlacedImage, ...]]:
    """A prompt with one placeholder for each image -> the prompt as the model sees it, and where its images are.

    Args:
        ids: token ids.
        images: in the order of their placeholders.
        token: the placeholder.

    Raises:
        InvalidRequest: there are more or fewer placeholders than images.
    """
    count = sum(id_ == token for id_ in ids)
    if count != len(images):
        raise InvalidRequest(
            "images", f"images: the prompt has {count} image placeholders, the request has {len(images)} images"
        )
    expanded: list[int] = []
    placed: list[PlacedImage] = []
    for id_ in ids:
        if id_ == token:
            image = images[len(placed)]
            placed.append(PlacedImage(len(expanded), image))
            expanded += [token] * image.tokens
        else:
            expanded.append(id_)
    return tuple(expanded), tuple(placed)
