"""From decoded images to what a tower reads, as the model's `preprocessor_config.json` says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from jaxserve.errors import InvalidRequest, ModelLoadError
from jaxserve.images.decode import decode
from jaxserve.images.sizes import shorter_side, smart_size
from jaxserve.images.types import Detail, ImageFile, ImageInput, ImageMarkup, ImageShape, Picture, Style

Pixels = npt.NDArray[np.uint8]
"""[height, width, 3]."""
_FILES = ("preprocessor_config.json", "processor_config.json")
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_LOW_PIXELS = 512 * 512
"""Area of an image of detail 'low' at most, where the tower takes images of any size."""
_LIBRARY_SMALLEST, _LIBRARY_LARGEST = 56 * 56, 28 * 28 * 1280


@dataclass(frozen=True)
class ImageProcessor:
    """The preprocessing of one model. Thread-safe."""

    shape: ImageShape
    rescale: float = 1 / 255
    mean: tuple[float, ...] = _CLIP_MEAN
    deviation: tuple[float, ...] = _CLIP_STD
    resample: Image.Resampling = Image.Resampling.BICUBIC
    resize: int | None = None
    """Length of the shorter side before the middle is cut out (crop)."""
    smallest: int = _LIBRARY_SMALLEST
    """Area in pixels at least (smart)."""
    largest: int = _LIBRARY_LARGEST
    """Area in pixels at most (smart)."""

    def tokens(self, width: int, height: int, detail: Detail = "auto") -> int:
        """Tokens of an image of this size.

        Raises:
            InvalidRequest: its proportions are impossible.
        """
        unit = self.shape.patch * self.shape.merge
        columns, rows = (side // unit for side in self._size(width, height, detail))
        return columns * rows + self.shape.extra_tokens

    def process(self, picture: Picture, detail: Detail = "auto") -> ImageInput:
        """Resizes an image and cuts it into patches.

        Raises:
            InvalidRequest: its proportions are impossible.
        """
        width, height = self._size(picture.width, picture.height, detail)
        source = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
        if self.shape.style == "crop":
            pixels = _middle(self._shorten(source), width, height)
        else:
            pixels = np.asarray(source.resize((width, height), self.resample))
        patch = self.shape.patch
        return ImageInput(
            patches=_patches(pixels, patch, self.shape.merge).tobytes(),
            grid=(height // patch, width // patch),
            tokens=self.tokens(picture.width, picture.height, detail),
            normalisation=(self.rescale, *self.mean, *self.deviation),
        )

    def _size(self, width: int, height: int, detail: Detail) -> tuple[int, int]:
        """Width and height of what is cut into patches."""
        if self.shape.side is not None:
            return self.shape.side, self.shape.side
        unit = self.shape.patch * self.shape.merge
        largest = min(self.largest, self.shape.max_tokens * unit * unit)
        if detail == "low":
            largest = min(largest, max(_LOW_PIXELS, unit * unit))
        return smart_size(width, height, unit, min(self.smallest, largest), largest)

    def _shorten(self, source: Image.Image) -> Pixels:
        side = self.resize or self.shape.side or 0
        return np.asarray(source.resize(shorter_side(source.width, source.height, side), self.resample))


@dataclass(frozen=True)
class ImageServices:
    """What prompts with images need."""

    processor: ImageProcessor
    markup: ImageMarkup

    def limited(self, max_tokens: int) -> ImageServices:
        """The same for images of at most so many tokens."""
        shape = replace(self.processor.shape, max_tokens=max_tokens)
        return ImageServices(replace(self.processor, shape=shape), self.markup)

    def read(self, files: Sequence[ImageFile], most_pixels: int) -> tuple[ImageInput, ...]:
        """Decodes the images of a request, one after the other; equal ones once.

        Args:
            files: in the order of the request.
            most_pixels: of all of them together.

        Raises:
            InvalidRequest: one can't be read, or they have too many pixels; names the part of the request.
        """
        known: dict[tuple[bytes, Detail], ImageInput] = {}
        for file in files:
            if (file.data, file.detail) not in known:
                picture = decode(file.data, file.where, most_pixels)
                most_pixels -= picture.width * picture.height
                known[file.data, file.detail] = self._process(picture, file)
        return tuple(known[file.data, file.detail] for file in files)

    def _process(self, picture: Picture, file: ImageFile) -> ImageInput:
        try:
            return self.processor.process(picture, file.detail)
        except InvalidRequest as error:
            raise InvalidRequest(file.where, f"{file.where}: {error.message}") from None


def read_processor(model_dir: Path, shape: ImageShape) -> ImageProcessor:
    """The preprocessing that a model directory describes; without a description, the one its tower was made with.

    Raises:
        ModelLoadError: the description is malformed, or asks for what is not supported.
    """
    fields = _description(model_dir)
    plain = _PLAIN[shape.style](ImageProcessor(shape))
    if fields.get("do_pan_and_scan"):
        raise ModelLoadError(f"{model_dir}: do_pan_and_scan in {_FILES[0]} is not supported.")
    try:
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not fields.get(step, True):
                raise ModelLoadError(f"{model_dir}: {step} false in {_FILES[0]} is not supported.")
        common = replace(
            plain,
            rescale=float(fields.get("rescale_factor") or plain.rescale),
            mean=_three(fields.get("image_mean"), plain.mean),
            deviation=_three(fields.get("image_std"), plain.deviation),
            resample=Image.Resampling(fields.get("resample", plain.resample)),
        )
        return _READ[shape.style](common, fields)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelLoadError(f"{model_dir}: {_FILES[0]} is malformed: {error}.") from None


def _description(model_dir: Path) -> Mapping[str, Any]:
    for name in _FILES:
        path = model_dir / name
        if not path.is_file():
            continue
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            found = fields.get("image_processor", fields if name == _FILES[0] else {})
            return dict(found) if isinstance(found, dict) else {}
        except (OSError, ValueError, AttributeError) as error:
            raise ModelLoadError(f"{path} is not readable JSON: {error}.") from None
    return {}


def _three(value: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    numbers = default if value is None else tuple(map(float, value))
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} numbers where each channel has one")
    return numbers


def _read_crop(plain: ImageProcessor, fields: Mapping[str, Any]) -> ImageProcessor:
    size, crop = fields.get("size") or {}, fields.get("crop_size") or {}
    side = plain.shape.side
    shortest = size if isinstance(size, int) else size.get("shortest_edge") or side
    height, width = (crop, crop) if isinstance(crop, int) else (crop.get(name, side) for name in _SIDES)
    if (height, width) != (side, side):
        raise ValueError(f"crop_size {width} x {height} is not the tower's {side}")
    return replace(plain, resize=shortest)


def _read_smart(plain: ImageProcessor, fields: Mapping[str, Any]) -> ImageProcessor:
    size = fields.get("size") or {}
    for name, expected in (("patch_size", plain.shape.patch), ("merge_size", plain.shape.merge)):
        if fields.get(name, expected) != expected:
            raise ValueError(f"{name} {fields[name]} is not the tower's {expected}")
    smallest = fields.get("min_pixels") or size.get("shortest_edge") or plain.smallest
    largest = fields.get("max_pixels") or size.get("longest_edge") or plain.largest
    return replace(plain, smallest=int(smallest), largest=int(largest))


def _read_square(plain: ImageProcessor, fields: Mapping[str, Any]) -> ImageProcessor:
    size = fields.get("size") or {}
    height, width = (size.get(side, plain.shape.side) for side in _SIDES)
    if (height, width) != (plain.shape.side, plain.shape.side):
        raise ValueError(f"size {width} x {height} is not the tower's {plain.shape.side}")
    return plain


_SIDES = ("height", "width")
_READ: Mapping[Style, Callable[[ImageProcessor, Mapping[str, Any]], ImageProcessor]] = {
    "crop": _read_crop,
    "smart": _read_smart,
    "square": _read_square,
}


def _as_siglip(plain: ImageProcessor) -> ImageProcessor:
    return replace(plain, mean=(0.5,) * 3, deviation=(0.5,) * 3, resample=Image.Resampling.BILINEAR)


_PLAIN: Mapping[Style, Callable[[ImageProcessor], ImageProcessor]] = {
    "crop": lambda plain: plain,
    "smart": lambda plain: plain,
    "square": _as_siglip,
}
"""What stands where the description is silent."""


def _middle(pixels: Pixels, width: int, height: int) -> Pixels:
    """The middle part of an image, black where the image is smaller."""
    if pixels.shape[0] < height or pixels.shape[1] < width:
        tall, wide = max(height, pixels.shape[0]), max(width, pixels.shape[1])
        above, left = -(-(tall - pixels.shape[0]) // 2), -(-(wide - pixels.shape[1]) // 2)
        padded = np.zeros((tall, wide, 3), np.uint8)
        padded[above : above + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        pixels = padded
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _patches(pixels: Pixels, patch: int, merge: int) -> Pixels:
    """[P, 3, patch, patch]: the patches of a token one after the other, tokens row by row."""
    rows, columns = (side // (patch * merge) for side in pixels.shape[:2])
    parts = pixels[: rows * patch * merge, : columns * patch * merge].reshape(
        rows, merge, patch, columns, merge, patch, 3
    )
    return parts.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, patch, patch)
