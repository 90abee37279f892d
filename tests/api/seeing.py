"""A model that reads images, as the HTTP room sees it; pictures, and the parts of messages that hold them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from api_fakes import ByteTokenizer, PlainTemplate
from PIL import Image

from jaxserve.images.processor import ImageProcessor, ImageServices
from jaxserve.images.types import ImageMarkup, ImageShape
from jaxserve.text.chat import image_numbers

TOKENIZER = ByteTokenizer(more=("<|image_pad|>", "<|vision_start|>", "<|vision_end|>"))
PAD, START, END = (TOKENIZER.id_of(f"<|{name}|>") or 0 for name in ("image_pad", "vision_start", "vision_end"))
SERVICES = ImageServices(
    ImageProcessor(ImageShape("smart", 4, 2, None), smallest=64), ImageMarkup(PAD, (START,), (END,))
)


def url_of(seed: int, tokens: int = 6) -> str:
    """A picture that takes so many tokens."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8 * tokens, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


ONE, TWO, THREE = url_of(1), url_of(2, 3), url_of(3, 4)


def part(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


class Showing(PlainTemplate):
    """Writes an image as Qwen's templates do."""

    def render(self, messages: Sequence[Mapping[str, Any]], **more: Any) -> str:
        shown = [dict(message) for message in messages]
        for message in shown:
            for number in image_numbers(message["content"]):
                pad = "<|vision_start|><|image_pad|><|vision_end|>"
                message["content"] = message["content"].replace(f"\ufdd0{number}\ufdd1", pad)
        return super().render(shown, **more)
