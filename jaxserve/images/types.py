"""What the rooms say to each other about images. Plain data without arrays: pixels travel as bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

Style = Literal["crop", "smart", "square"]
"""How an image is brought to a size: its shorter side, then the middle (CLIP); both sides to multiples of a token's
side, about as they were (Qwen-VL); both sides to the same length (SigLIP)."""
Detail = Literal["auto", "low", "high"]


@dataclass(frozen=True)
class ImageShape:
    """What a model's tower wants of its images."""

    style: Style
    patch: int
    """Side of a patch, in pixels."""
    merge: int
    """Side of the square of patches that become one token."""
    side: int | None
    """Side of an image in pixels where the tower takes only one size."""
    extra_tokens: int = 0
    """Tokens of an image beside those of its patches."""
    max_tokens: int = 1 << 20
    """Tokens of one image at most; larger images are made smaller."""


@dataclass(frozen=True)
class ImageMarkup:
    """How images stand in a model's prompts."""

    token: int
    """The placeholder, which stands once for each token of an image."""
    before: tuple[int, ...] = ()
    """Tokens that go before an image where a prompt has a generic placeholder."""
    after: tuple[int, ...] = ()
    around: str = ""
    """Text that goes around all of these."""
    template_token: int | None = None
    """What chat templates write in place of it all, where that is not the placeholder."""


@dataclass(frozen=True)
class ImageFile:
    """An image as a request holds it."""

    where: str
    """The part of the request that holds it."""
    data: bytes = field(repr=False)
    detail: Detail = "auto"


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image: upright, without alpha."""

    width: int
    height: int
    rgb: bytes = field(repr=False)
    """8 bits each of red, green, blue; row by row from the top: 3 * width * height bytes."""

    def __post_init__(self) -> None:
        if len(self.rgb) != 3 * self.width * self.height:
            raise ValueError(f"{len(self.rgb)} bytes are no RGB image of {self.width} x {self.height}")


@dataclass(frozen=True, eq=False)
class ImageInput:
    """An image as its tower reads it."""

    patches: bytes = field(repr=False)
    """uint8 [P, 3, patch, patch]: the patches of a token one after the other, tokens row by row."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    tokens: int
    """Placeholders that it takes in a prompt."""
    normalisation: tuple[float, ...]
    """A channel's number is (pixel * first - mean) / deviation: the factor, three means, three deviations."""
    digest: int = field(init=False)
    """Of all that the tower sees, 256 bits: equal images have equal ones, and no others."""

    def __post_init__(self) -> None:
        shape = f"{self.grid} {self.tokens} {self.normalisation} ".encode()
        object.__setattr__(self, "digest", int.from_bytes(blake2b(shape + self.patches, digest_size=32).digest()))


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """An image in a prompt."""

    start: int
    """Position of its first placeholder."""
    image: ImageInput

    @property
    def end(self) -> int:
        """The position after its last placeholder."""
        return self.start + self.image.tokens
