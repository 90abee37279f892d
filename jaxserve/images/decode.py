"""Files of images, as strangers send them, to upright pictures of 8 bits for each of three channels.

Only the decoders of seven kinds are ever tried, the size is known and checked before a pixel is decoded, and whatever a
decoder trips over is one sentence.
"""

from __future__ import annotations

import io
import threading
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxserve.errors import InvalidRequest
from jaxserve.images.types import Picture

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF."""
_WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_LARGE = 1 << 24
"""Pixels from which on images are decoded one at a time: they take up to 11 bytes for each while they are converted."""
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_MOST_SCANS, _MOST_SCANNED = 500, 1 << 31
"""Of a JPEG (ten are usual), and pixels of all of them: a scan of 16 million takes 12 ms if nothing is in it."""
_one_at_a_time = threading.Lock()


def decode(data: bytes, where: str, most_pixels: int) -> Picture:
    """An image of a file: upright as EXIF says, alpha over white, the first frame of several.

    Args:
        data: the file.
        where: the part of the request that holds it, for errors.
        most_pixels: more are refused before any is decoded.

    Raises:
        InvalidRequest: it is no image of a known kind, damaged, or too large; one sentence.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        kinds = ", ".join(_FORMATS[:-1]).lower()
        raise InvalidRequest(where, f"{where}: not an image of a kind that is read ({kinds}, webp)") from None
    except Image.DecompressionBombError:
        raise _too_large(where, most_pixels) from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - decoders raise anything at all over damaged files
        raise _damaged(where) from None
    with image:
        if _area(image) > most_pixels:
            raise _too_large(where, most_pixels)
        if _scans(image, data) > min(_MOST_SCANS, _MOST_SCANNED // _area(image)):
            raise InvalidRequest(where, f"{where}: the JPEG goes over its pixels too often; save it with fewer scans")
        return _decode(image, where)


def _area(image: Image.Image) -> int:
    """Pixels that are decoded: those of a whole tile, of which a TIFF may show a corner only."""
    tags = getattr(image, "tag_v2", {})
    width, height = (_number(tags.get(tag)) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    return max(1, image.width * image.height, width * height)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _scans(image: Image.Image, data: bytes) -> int:
    """How often the pixels of a JPEG are gone over: a scan of thirty bytes costs as much as one of megabytes."""
    is_jpeg = image.format in ("JPEG", "MPO") or str(image.info.get("compression", "")).endswith("jpeg")
    return data.count(b"\xff\xda") if is_jpeg else 0


def _decode(image: Image.Image, where: str) -> Picture:
    with _room(image):
        try:
            image.load()
            upright = _upright(_rgb(image), image)
            return Picture(upright.width, upright.height, upright.tobytes())
        except InvalidRequest:
            raise
        except _Unreadable as error:
            raise InvalidRequest(where, f"{where}: {error}") from None
        except Exception:  # noqa: BLE001 - as above
            raise _damaged(where) from None


class _Unreadable(Exception):
    """An image of a known kind whose pixels have no meaning here."""


def _room(image: Image.Image) -> AbstractContextManager[object]:
    return _one_at_a_time if _area(image) >= _LARGE else nullcontext()


def _too_large(where: str, most_pixels: int) -> InvalidRequest:
    return InvalidRequest(where, f"{where}: too many pixels; the request's images may have {most_pixels} from here on")


def _damaged(where: str) -> InvalidRequest:
    return InvalidRequest(where, f"{where}: the image is damaged or cut off")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return _over_white(image.convert("RGBA"))
    if image.mode in ("F", "LAB"):
        raise _Unreadable(f"an image of mode {image.mode} has no colours that are known here; send 8 bits a channel")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """The upper 8 of 16 bits, as the decoders do it where an image has three channels of them; Pillow would clip."""
    if image.mode == "I" and image.format == "TIFF":
        raise _Unreadable("a TIFF of 32 bits a channel is not read; send 8 or 16")
    levels = np.asarray(image).clip(0, 0xFFFF) >> 8
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(_orientation(source))
    return pixels if turn is None else pixels.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """What EXIF says, 1 where it says nothing that can be read. TIFF files are turned while they are loaded."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - damaged EXIF harms no pixel
        return 1
