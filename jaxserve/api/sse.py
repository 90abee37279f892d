"""Server-sent events, byte by byte as clients expect them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
"""Tell caches and proxies to hand every event on at once."""
DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"

_LINE_BREAKS = re.compile("[\x7f\x85\u2028\u2029]")
"""Characters that many clients' line splitters take for line ends although the protocol doesn't."""
_LINE_BREAK_BYTES = re.compile(b"\x7f|\xc2\x85|\xe2\x80[\xa8\xa9]")
"""The same, encoded."""

_UNFINISHED = b'"finish_reason":null'
"""Stands in every chunk but the last."""


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON on one line, whatever a reader takes for a line end.

    Raises:
        ValueError: a number is not finite.
    """
    try:
        encoded = orjson.dumps(value)
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits
        return _encode_anything(value)
    if encoded.count(b"null") > encoded.count(_UNFINISHED) and _not_finite(value):
        raise ValueError("a number is not finite")
    return encoded if _LINE_BREAK_BYTES.search(encoded) is None else _encode_anything(value)


def _not_finite(value: object) -> bool:
    """orjson writes null for what JSON has no number for."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_not_finite, value.values()))
    return isinstance(value, list | tuple) and any(map(_not_finite, value))


def _encode_anything(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _LINE_BREAKS.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode("utf-8", "replace")


def encode_answer(answer: Mapping[str, Any]) -> bytes:
    """As `encode_json`, choice by choice: each call of the encoder holds up all threads, and choices can be many."""
    frame = encode_json({**answer, "choices": []})
    choices = b",".join(map(encode_json, answer["choices"]))
    return frame.replace(b'"choices":[]', b'"choices":[' + choices + b"]", 1)


def data(chunks: Iterable[Mapping[str, Any]]) -> bytes:
    """One event for each chunk."""
    return b"".join(b"data: " + encode_json(chunk) + b"\n\n" for chunk in chunks)


def error(body: Mapping[str, Any]) -> bytes:
    """The event that ends a stream whose request failed after its first byte."""
    return b"event: error\ndata: " + encode_json(body) + b"\n\n"
