"""Whether a text belongs to a GBNF grammar, found out without the library that the server uses.

A recogniser that keeps every position at which a part may end: slow, and short enough to be read.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)|(?P<define>::=)|(?P<name>[a-zA-Z][\w-]*)|(?P<text>"(?:\\.|[^"\\])*")"""
    r"""|(?P<set>\[(?:\\.|[^\]\\])*\])|(?P<repeat>[*+?]|\{\d*,?\d*\})|(?P<sign>[()|.])""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r"}


def _unescape(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code[1:], 16)) if code[0] in "xu" and len(code) > 1 else _NAMED.get(code, code)

    return _ESCAPE.sub(one, text)


class Grammar:
    """A parsed grammar."""

    def __init__(self, text: str) -> None:
        found = [(m.lastgroup, m[0]) for m in _TOKEN.finditer(text)]
        assert "".join(part for _, part in found) == text, "the grammar has something this reader doesn't know"
        self._tokens = [token for token in found if token[0] != "blank"]
        self._rules: dict[str, tuple] = {}
        while self._tokens:
            name = self._tokens.pop(0)[1]
            assert self._tokens.pop(0)[0] == "define"
            self._rules[name] = self._choice()

    def accepts(self, text: str) -> bool:
        """Whether the whole text is one of the grammar's."""
        self._text, self._memo = text, {}
        return len(text) in self._ends(("rule", "root"), 0)

    def _choice(self) -> tuple:
        options = [self._sequence()]
        while self._tokens and self._tokens[0][1] == "|":
            self._tokens.pop(0)
            options.append(self._sequence())
        return ("choice", tuple(options))

    def _sequence(self) -> tuple:
        parts: list[tuple] = []
        while self._tokens:
            kind, text = self._tokens[0]
            if text in ("|", ")") or (len(self._tokens) > 1 and self._tokens[1][0] == "define"):
                break
            self._tokens.pop(0)
            if kind == "repeat":
                parts[-1] = ("repeat", parts[-1], *_bounds(text))
            elif text == "(":
                parts.append(self._choice())
                self._tokens.pop(0)
            elif kind == "name":
                parts.append(("rule", text))
            elif kind == "text":
                parts.append(("text", _unescape(text[1:-1])))
            else:
                parts.append(("set", text if kind == "set" else "[^\n]"))
        return ("sequence", tuple(parts))

    def _ends(self, part: tuple, at: int) -> frozenset[int]:
        key = (part, at)
        if key not in self._memo:
            self._memo[key] = frozenset(getattr(self, f"_{part[0]}_ends")(part, at))
        return self._memo[key]

    def _rule_ends(self, part: tuple, at: int) -> frozenset[int]:
        return self._ends(self._rules[part[1]], at)

    def _text_ends(self, part: tuple, at: int) -> set[int]:
        return {at + len(part[1])} if self._text.startswith(part[1], at) else set()

    def _set_ends(self, part: tuple, at: int) -> set[int]:
        return {at + 1} if at < len(self._text) and _in_set(part[1], self._text[at]) else set()

    def _choice_ends(self, part: tuple, at: int) -> set[int]:
        return {end for option in part[1] for end in self._ends(option, at)}

    def _sequence_ends(self, part: tuple, at: int) -> set[int]:
        ends = {at}
        for each in part[1]:
            ends = {end for start in ends for end in self._ends(each, start)}
        return ends

    def _repeat_ends(self, part: tuple, at: int) -> set[int]:
        _, inner, least, most = part
        ends, frontier = {at} if least == 0 else set(), {at}
        seen, count = {at}, 0
        while frontier and (most is None or count < most):
            count += 1
            frontier = {end for start in frontier for end in self._ends(inner, start)}
            if count >= least:
                frontier -= seen if count > least else set()
                ends |= frontier
                seen |= frontier
        return ends


def _bounds(text: str) -> tuple[int, int | None]:
    if text in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[text]
    low, comma, high = text[1:-1].partition(",")
    return int(low or 0), (int(high) if high else None) if comma else int(low)


def _in_set(written: str, char: str) -> bool:
    body = written[1:-1]
    negated = body.startswith("^")
    units = re.findall(r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", body[negated:], re.DOTALL)
    found, index = False, 0
    while index < len(units):
        low = high = _unescape(units[index])
        if index + 2 < len(units) and units[index + 1] == "-":
            high = _unescape(units[index + 2])
            index += 2
        index += 1
        found = found or low <= char <= high
    return found != negated
