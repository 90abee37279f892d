"""Why a grammar is refused, in sentences of ours: what llguidance says names its internals, and panics whole stacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MAX_QUOTED = 60
"""Characters that a sentence quotes of a request."""
TOO_LARGE = "it is too large or too deeply nested for this server"
UNKNOWN = "the grammar engine of this server can't enforce it"


def _sentence(text: str) -> Callable[[re.Match[str]], str]:
    def fill(found: re.Match[str]) -> str:
        return text.format(*(_short(part) for part in found.groups()))

    return fill


def _short(part: str | None) -> str:
    text = (part or "").strip()
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."


_SENTENCES: tuple[tuple[str, str], ...] = (
    (r"panic|stack overflow|too big|too large|too many (?:expr|states|items)|stack level exceeded", TOO_LARGE),
    (r"look-around|lookaround|(?i:lookahead|lookbehind)", "a pattern uses look-around or word boundaries"),
    (r"backreferences", "a pattern uses backreferences"),
    (r"[Uu]nicode property", "a pattern names an unknown class of characters"),
    (r"regex parse error|invalid regex|Invalid escape|invalid range", "a pattern is not a regular expression"),
    (r"Unable to determine if regex is empty|fuel exhausted", "its patterns are too costly to combine"),
    (
        r"patternProperty regexes /(.*?)/ and /(.*?)/ are not disjoint",
        "'patternProperties' overlap: a key could match both {0!r} and {1!r}",
    ),
    (r"oneOf constraints", "the options of a 'oneOf' overlap, or could; with 'anyOf' they may"),
    (r"Pointer '(.*?)' does not exist", "'$ref' points to nothing: '#{0}'"),
    (r"Anchor '(.*?)' does not exist", "'$ref' points to nothing: '#{0}'"),
    (r"\$ref must be a string|Invalid URI", "a '$ref' is not a reference"),
    (r"circular references with sibling keys", "a '$ref' that leads back to itself has keywords beside it"),
    (r"Invalid type: (.*)", "'type' has the unknown value {0!r}"),
    (r"(\w+) \((.*?)\) is greater than (\w+) \((.*?)\)", "no value satisfies it: '{0}' {1} is above '{2}' {3}"),
    (r"[Uu]nsatisfiable|Regex is empty", "no value satisfies it"),
    (r"min/maxProperties only", "'minProperties' and 'maxProperties' are not supported beside optional 'properties'"),
    (r"integer range|number range|Infinite numbers", "a bound of a number is too large"),
    (r"multipleOf|multiple of", "'multipleOf' has a value that is not supported"),
    (r"Expected \w+(?: \w+)? for '(\w+)'", "{0!r} has a value of the wrong kind"),
    (r"^(\w+) must be (?:an? )?", "{0!r} has a value of the wrong kind"),
    (r"Unimplemented keys: \[\"(.*?)\"", "the keyword {0!r} is not supported"),
    (r"unknown name|[Ee]xpect(?:ing|ed)", "it is not a grammar of the expected notation"),
)
"""(what llguidance says, our sentence), the first that matches; tested on one input for each."""


def refusal_of(error: str) -> str:
    """What llguidance says, as the end of a sentence of ours."""
    first = _unwrapped(error)
    for said, ours in _SENTENCES:
        found: Any = re.search(said, first)
        if found is not None:
            return ours.format(*map(_short, found.groups()))
    return UNKNOWN


def _unwrapped(error: str) -> str:
    """The message without its positions, and without the grammar that follows it."""
    head = (
        error if error.startswith("regex parse error") or "regex parse error" in error[:200] else error.split("\n")[0]
    )
    text = " ".join(head.split())[:2_000]
    return re.sub(r"^(?:(?:at )?\d+\(\d+\): |failed to compile JSON schema: )+", "", text)
