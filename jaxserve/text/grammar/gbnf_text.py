"""Escapes and character classes of GBNF."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|[uU]([0-9a-fA-F]{1,8})|(.))", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}


def _character(code: str) -> str:
    return chr(int(code, 16)) if int(code, 16) < 0x110000 else "\ufffd"


def unescape(text: str) -> str:
    """The characters that a literal stands for."""

    def char(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return _NAMED.get(found[3], found[3]) if code is None else _character(code)

    return _ESCAPE.sub(char, text)


def rust_class(regex: str) -> str:
    """A character class as llguidance's regular expressions write it."""
    if regex == ".":
        return "(?s:.)"

    def char(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return f"\\x{{{code}}}" if code is not None else found[0]

    # Doubled, these would be operations on sets.
    return _ESCAPE.sub(char, regex).replace("&&", r"\&\&").replace("~~", r"\~\~")


def python_class(regex: str) -> str:
    """A character class as Python's regular expressions write it."""
    return _ESCAPE.sub(lambda found: re.escape(_character(found[1] or found[2])) if not found[3] else found[0], regex)
