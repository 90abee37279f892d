"""A prompt as the model will see it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxserve.images.types import PlacedImage


@dataclass(frozen=True)
class PromptTokens:
    """One prompt as the model will see it."""

    ids: tuple[int, ...]
    text: str | None = None
    """The text it was made from; None when the caller gave token ids."""
    fragments: tuple[str | int, ...] = ()
    """`raw_output.prompt_fragments`."""
    images: tuple[PlacedImage, ...] = ()
    """The images in it, in order."""
    image_urls: tuple[str, ...] = ()
    """Where these came from."""

    def last(self, count: int, added: int) -> PromptTokens:
        """The prompt cut to at most its last `count` tokens; of an image that doesn't fit whole, nothing stays.

        Args:
            count: tokens.
            added: how many tokens at its beginning stay where there is room for them.
        """
        head = self.ids[:added] if added < count else ()
        start = len(self.ids) - (count - len(head))
        for placed in self.images:
            if placed.start < start < placed.end:
                start = placed.end
        kept = [placed for placed in self.images if placed.start >= start]
        ids = head + self.ids[start:]
        moved = tuple(PlacedImage(placed.start - start + len(head), placed.image) for placed in kept)
        urls = self.image_urls[len(self.image_urls) - len(kept) :]
        return replace(self, ids=ids, text=None, fragments=ids, images=moved, image_urls=urls)
