"""Files of images, made by hand and by Pillow."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def stored(image: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def noise(seed: int, width: int = 24, height: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png_url(image: Image.Image) -> str:
    return data_url(stored(image, "PNG"))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")])


def hostile() -> dict[str, bytes]:
    """Files that no server may stumble over, by name."""
    plain = noise(1, 64, 48)
    files: dict[str, bytes] = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"):
        whole = stored(plain, kind)
        for share in (0.05, 0.3, 0.6, 0.9):
            files[f"{kind} cut at {share}"] = whole[: int(len(whole) * share)]
    big = 1 << 16
    rows = zlib.compress(bytes(1 << 22), 9)
    files |= {
        "bomb": png(big, big, chunk(b"IDAT", rows)),
        "largest png": png((1 << 31) - 1, (1 << 31) - 1, chunk(b"IDAT", rows)),
        "wide png": png(1 << 28, 1, chunk(b"IDAT", rows)),
        "no pixels": png(0, 0),
        "no width": png(0, 10, chunk(b"IDAT", zlib.compress(b""))),
        "png without data": png(8, 8),
        "png of another length": png(500, 500, chunk(b"IDAT", zlib.compress(bytes(100)))),
        "png of a wrong depth": png(8, 8, chunk(b"IDAT", rows), depth=7),
        "png of a wrong colour": png(8, 8, chunk(b"IDAT", rows), colour=9),
        "png with a text bomb": png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27), 9))),
        "png with no zlib": png(8, 8, chunk(b"IDAT", b"no zlib stream")),
        "bmp of huge size": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, big, big, 1, 24, 0, 0, 1, 1, 0, 0),
        "bmp of negative width": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -9, 9, 1, 24, 0, 0, 1, 1, 0, 0),
        "gif of huge size": b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        "gif without frames": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";",
        "ppm of huge size": b"P6\n99999 99999\n255\n" + bytes(100),
        "ppm of no number": b"P6\nabc 5\n255\n" + bytes(100),
        "ppm of long numbers": b"P6\n" + b"9" * 5000 + b" 5\n255\n",
        "pfm of floats": b"Pf\n4 4\n-1.0\n" + struct.pack("<16f", *range(16)),
        "tiff of huge size": _tiff(big, big),
        "tiff of a huge tile": _tiff(8, 8, tile=(1 << 14, 1 << 13)),
        "jpeg of many scans": _scanned(Image.new("RGB", (512, 512)), 9000),
        "jpeg of many small scans": _scanned(noise(3, 16, 16), 501),
        "tiff that points outside": b"II*\0" + struct.pack("<I", 1 << 30),
        "tiff that points at itself": b"II*\0" + struct.pack("<IHHHII", 8, 1, 256, 3, 1, 8) + struct.pack("<I", 8),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
        "svg with a prologue": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
        "html": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "zip": b"PK\3\4" + bytes(40),
        "ico": b"\0\0\1\0\1\0\x10\x10" + bytes(40),
        "icns": stored(noise(2, 64, 64), "ICNS"),
        "nothing": b"",
        "one byte": b"\x89",
        "zeros": bytes(1000),
        "text": b"this is no image" * 100,
        "jpeg's first bytes": b"\xff\xd8\xff\xe0" + bytes(100),
        "webp's first bytes": b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8 " + bytes(92),
    }
    return files


def _scanned(image: Image.Image, times: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    whole = stored(image.convert("L"), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * times + whole[-2:]


def _tiff(width: int, height: int, tile: tuple[int, int] | None = None) -> bytes:
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 9)]
    if tile is not None:
        entries = [*entries[:5], (322, 4, tile[0]), (323, 4, tile[1]), (324, 4, 8), (325, 4, 9)]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
