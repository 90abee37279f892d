"""Server-sent events, byte by byte as clients expect them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

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


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON on one line, whatever a reader takes for a line end."""
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
