"""The bytes of images that stand in a request as data URLs (RFC 2397)."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from jaxserve.errors import InvalidRequest

_HEAD = re.compile(r"data:(?P<type>[^;,]*)(?:;[^;,]*)*?;base64,", re.IGNORECASE)
_TYPES = re.compile(r"image/.*|application/octet-stream|", re.IGNORECASE)
"""Media types that an image may come under. Which kind of image it is, its bytes say."""
_LONGEST_HEAD = 256


def read_data_url(url: str, where: str) -> bytes:
    """The bytes that a data URL holds.

    Args:
        url: as the client sent it.
        where: the part of the request that holds it, for errors.

    Raises:
        InvalidRequest: it is another URL, of another media type, or not base64.
    """
    head = _HEAD.match(url[:_LONGEST_HEAD])
    if head is None:
        raise InvalidRequest(where, f"{where}: {_what_else(url)}")
    if not _TYPES.fullmatch(head["type"].strip()):
        raise InvalidRequest(where, f"{where}: a data URL of type {head['type'][:64]!r} holds no image")
    data = "".join(url[head.end() :].split()).encode("utf-8", "replace")
    if b"%" in data:
        data = unquote_to_bytes(data)
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        raise InvalidRequest(where, f"{where}: the data URL is not valid base64") from None


def is_remote(url: str) -> bool:
    """Whether it names a place on the network instead of holding the image."""
    return url[:8].lower().startswith(("http://", "https://"))


def _what_else(url: str) -> str:
    wanted = "send a data URL (data:image/png;base64,...)"
    if is_remote(url):
        return f"this server fetches no images from http(s) addresses (allow_image_urls is off); {wanted}"
    if url[:5].lower() == "data:":
        return f"a data URL without base64; {wanted}"
    return f"no URL that this server reads; {wanted}"
