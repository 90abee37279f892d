"""JSON of a request: read without holding up the other threads, refused where it holds absurdly many values."""

from __future__ import annotations

import codecs
import json
import math
from contextlib import nullcontext
from json.decoder import JSONArray, JSONDecoder, JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from threading import Lock
from typing import Any, NoReturn

from jaxserve.api.errors import ApiError

_KEYS_AT_ONCE = 20_000
_VALUES_AT_ONCE = 200_000
"""What the C scanner may read: it holds the interpreter's lock from beginning to end, 1.2 us a key and 0.12 us a
number (2-core EPYC), so a million keys would silence every stream for more than a second."""

_LARGE = 1 << 20
_ONE_LARGE = Lock()
"""Bodies of a megabyte are read one after the other: two threads would hand each other the interpreter's lock, call by
call of tens of milliseconds. Whoever takes it six times in a row, as an engine does in a step, waited 0.5 s then,
and 0.25 s now (16 bodies of 15 MiB, two busy cores)."""
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""That of UTF-32 LE begins as that of UTF-16 LE does."""


def parse_json(body: bytes, max_values: int = 500_000) -> dict[str, Any]:
    """The JSON object in `body`: UTF-8, finite numbers, no half surrogate pairs.

    Args:
        body: the bytes.
        max_values: values it may hold, at all depths together.

    Raises:
        ApiError: 422 that says what is wrong and where.
    """
    if body.startswith(_MARKS):
        raise _malformed("it begins with a byte order mark (BOM), which it must not: send UTF-8 without one")
    try:
        with _ONE_LARGE if len(body) > _LARGE else nullcontext():
            value = _decoder(body, max_values).decode(body.decode("utf-8"))
            if b"\\ud" in body or b"\\uD" in body:
                json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _malformed(f"not valid UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise _malformed("a string holds half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _malformed(reason) from None
    if not isinstance(value, dict):
        raise ApiError(422, "body: must be a JSON object", loc=("body",), code="invalid_json")
    return value


def _malformed(reason: str) -> ApiError:
    return ApiError(422, f"body: malformed JSON: {reason}", loc=("body",), code="invalid_json")


def _decoder(body: bytes, max_values: int) -> Any:
    """The C scanner for what it surely reads in no time, the Python scanner, which other threads interrupt, for others.

    Separators are counted inside texts too: a long text is one value to either scanner.
    """
    decoder: Any = JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
    separators = body.count(b",") + body.count(b"[") + body.count(b"{")
    if body.count(b":") > _KEYS_AT_ONCE or separators > min(_VALUES_AT_ONCE, max_values):
        _read_in_python(decoder, max_values)
    return decoder


def _read_in_python(decoder: Any, max_values: int) -> None:
    left = max_values

    def counting(scan: Any) -> Any:
        def scan_next(text: str, start: int) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise ValueError(f"more than {max_values} values")
            return scan(text, start)

        return scan_next

    decoder.parse_array = lambda start, scan: JSONArray(start, counting(scan))
    decoder.parse_object = lambda start, strict, scan, hook, pairs_hook, memo: JSONObject(
        start, strict, counting(scan), hook, _dictionary, _Unshared
    )
    decoder.scan_once = py_make_scanner(decoder)


class _Unshared:
    """Keys are not shared between objects: giving up the dictionary that would share them is one long call."""

    @staticmethod
    def setdefault(key: str, _: str) -> str:
        return key


def _dictionary(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its pairs, piece by piece: at once, 400,000 silence other threads for 0.2 to 0.5 s."""
    found: dict[str, Any] = {}
    for start in range(0, len(pairs), _KEYS_AT_ONCE):
        found.update(pairs[start : start + _KEYS_AT_ONCE])
    while pairs:
        del pairs[-_KEYS_AT_ONCE:]
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
