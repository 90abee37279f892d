"""What a schema says of texts: formats as patterns, look-ahead in other patterns, and all of it as a language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jaxserve.text.schemas.patterns import language
from jaxserve.text.schemas.regular import ANY, Language

_DATE = (
    r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_LETTER = r"\x{a0}-\x{d7ff}\x{f900}-\x{fdcf}\x{fdf0}-\x{ffef}"
"""What internationalised identifiers have beyond those of ASCII, the rarest planes left out."""


def _reference(more: str, *, scheme: str) -> str:
    """A URI (RFC 3986) or IRI (RFC 3987), with a scheme or relative."""
    char = rf"(?:[A-Za-z0-9._~!$&'()*+,;=:@{more}-]|%[0-9A-Fa-f]{{2}})"
    first = rf"(?:[A-Za-z0-9._~!$&'()*+,;=@{more}-]|%[0-9A-Fa-f]{{2}})"
    host = rf"(?:[A-Za-z0-9._~!$&'()*+,;={more}-]|%[0-9A-Fa-f]{{2}})*"
    path = rf"(?://{host}(?::[0-9]{{1,5}})?(?:/{char}*)*|/(?:{char}+(?:/{char}*)*)?|{{0}}(?:/{char}*)*)?"
    end = rf"(?:\?(?:{char}|[/?])*)?(?:#(?:{char}|[/?])*)?"
    absolute = rf"[A-Za-z][A-Za-z0-9+.-]*:{path.replace('{0}', char + '+')}"
    if scheme == "required":
        return rf"^{absolute}{end}$"
    return rf"^(?:{absolute}|{path.replace('{0}', first + '+')}){end}$"


_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_VARIABLES = r"[A-Za-z0-9_]+(?::[1-9][0-9]{0,3}|\*)?"
_ATOM = r"(?:[A-Za-z0-9 _,:;@/=<>!%&'-]|\\[dwsDWS.+*?(){}|^$]|\.|\[\^?(?:[A-Za-z0-9_.@ ]|a-z|A-Z|0-9)+\])[*+?]?"
FORMATS: Mapping[str, str] = {
    "date": f"^(?:{_DATE})$",
    "time": f"^{_TIME}$",
    "date-time": f"^(?:{_DATE})T{_TIME}$",
    "uri-reference": _reference("", scheme="optional"),
    "iri": _reference(_LETTER, scheme="required"),
    "iri-reference": _reference(_LETTER, scheme="optional"),
    "uri-template": (
        r"^(?:[A-Za-z0-9._~!$&()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{2}"
        rf"|\{{[+#./;?&]?{_VARIABLES}(?:,{_VARIABLES})*\}})*$"
    ),
    "json-pointer": f"^{_POINTER}$",
    "relative-json-pointer": f"^(?:0|[1-9][0-9]*)(?:#|{_POINTER})$",
    "regex": rf"^\^?(?:{_ATOM}|\((?:{_ATOM})+(?:\|(?:{_ATOM})+)*\)[*+?]?)*\$?$",
}
"""Formats that the grammar engine lacks or takes for more than they are, as patterns. Each is the format, or a part of
it that everyday texts are in: regular expressions without nested groups, no leap seconds, nine digits of a fraction."""
ENGINE_FORMATS = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""Those that the grammar engine knows."""
SHAPES: Mapping[str, str] = {
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "time": r"^[0-9]{2}:[0-9]{2}:",
    "date-time": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]",
    "duration": "^P",
    "email": "@",
    "hostname": "^[A-Za-z0-9.-]+$",
    "ipv4": r"^[0-9]{1,3}(?:\.[0-9]{1,3}){3}$",
    "ipv6": "^[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*$",
    "uuid": "^[0-9A-Fa-f-]{36}$",
    "uri": "^[A-Za-z][A-Za-z0-9+.-]*:",
    "iri": "^[A-Za-z][A-Za-z0-9+.-]*:",
    "json-pointer": "^(?:/|$)",
    "relative-json-pointer": "^[0-9]",
}
"""What all texts of a format look like, others perhaps as well: what must not have a format must not look like it."""
ALIASES = {"idn-email": "email", "idn-hostname": "hostname", "ip-address": "ipv4", "host-name": "hostname"}
"""Formats that a narrower one stands for, and old names."""


def split_lookahead(pattern: str) -> tuple[list[str], list[str]] | None:
    """A pattern with look-ahead at its beginning as (patterns that must match, patterns that must not), without it.

    None if there is none, or it can't be split.
    """
    rest = pattern[1:]
    must: list[str] = []
    must_not: list[str] = []
    while pattern.startswith("^") and rest.startswith(("(?=", "(?!")):
        end = _closing(rest)
        if end is None:
            return None
        (must if rest[2] == "=" else must_not).append(f"^(?:{rest[3:end]})")
        rest = rest[end + 1 :]
    if not (must or must_not) or "(?=" in rest or "(?!" in rest or "(?<" in rest or _branches(rest):
        return None
    return [f"^{rest}", *must], must_not


def _closing(pattern: str) -> int | None:
    """Where the group ends that a pattern begins with."""
    depth = 0
    for at, char in _outside_classes(pattern):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return at
    return None


def _branches(pattern: str) -> bool:
    """Whether there is a `|` outside of groups: what stands before it is no beginning of the whole then."""
    depth = 0
    for _, char in _outside_classes(pattern):
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            return True
    return False


def _outside_classes(pattern: str) -> list[tuple[int, str]]:
    found, inside, at = [], False, 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif inside:
            inside = char != "]"
        elif char == "[":
            inside = True
            at += (pattern[at + 1 : at + 2] == "^") + (pattern[at + 1 : at + 3] in ("]", "^]"))
        else:
            found.append((at, char))
        at += 1
    return found


def lengths(least: int, most: int | None) -> str:
    """A pattern of texts by their length."""
    return f"^{ANY}{{{least},{'' if most is None else most}}}$"


def own_language(schema: Mapping[str, Any]) -> Language:
    """The texts that a schema's own keywords about texts allow, and perhaps more: see `SHAPES`.

    Raises:
        NotRegular: it can't be told.
    """
    patterns = [schema["pattern"]] if "pattern" in schema else []
    shape = SHAPES.get(ALIASES.get(schema.get("format", ""), schema.get("format", "")))
    patterns += [shape] if shape is not None else []
    if "minLength" in schema or "maxLength" in schema:
        patterns.append(lengths(schema.get("minLength", 0), schema.get("maxLength")))
    found = language("")
    for pattern in patterns:
        found &= pattern_language(pattern)
    return found


def pattern_language(pattern: str) -> Language:
    """The texts that a pattern matches, look-ahead at its beginning included.

    Raises:
        NotRegular: it can't be told.
    """
    split = split_lookahead(pattern)
    if split is None:
        return language(_plain_escapes(pattern))
    found = language("")
    for part in split[0]:
        found &= language(_plain_escapes(part))
    for part in split[1]:
        found &= ~language(_plain_escapes(part))
    return found


def _plain_escapes(pattern: str) -> str:
    """`\\x{...}` as Python writes it."""
    return re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: f"\\U{int(found[1], 16):08x}", pattern)
