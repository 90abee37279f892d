"""What is known of a request's images while it is lowered, which may happen more than once: they are fetched once, and
decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxserve.images.types import ImageInput


class NotFetched(Exception):
    """Images have to be fetched before the request can be lowered."""

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__()
        self.urls = urls


@dataclass
class RequestImages:
    """The images of one request. Its threads use it one after the other."""

    fetches: bool = False
    """Whether images are fetched here."""
    fetched: dict[str, bytes | str] = field(default_factory=dict)
    """By URL: the file, or why it can't be had."""
    inputs: tuple[ImageInput, ...] | None = None
    """All of them, in order, once they have been decoded."""
