"""Patterns as languages: what they match, what they don't, written as patterns again, compared."""

from __future__ import annotations

import random
import re

import pytest

from jaxserve.text.schemas.patterns import language
from jaxserve.text.schemas.regular import NotRegular, other_texts
from jaxserve.text.schemas.strings import _plain_escapes, split_lookahead

PATTERNS = [
    "^a+b?$",
    "abc",
    "^[a-z]{2,4}(-[0-9]+)?$",
    "^(foo|bar)",
    "x$|^y",
    "^\\S+@\\S+$",
    "(^|,)a(,|$)",
    "^$",
    ".",
    "^[^\\s]{1,5}$",
    "^(?:[01]?\\d|2[0-3]):[0-5]\\d$",
    "\\W\\w",
]
CHARS = "ab,xyfor0129- @:\n\u00e9cABz"


def texts(count: int) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(CHARS, k=rng.randint(0, 6))) for _ in range(count)]


def matches(pattern: str, text: str) -> bool:
    """As JSON Schema has it: `$` is the end, not the place before a last line break."""
    return re.search(_plain_escapes(pattern).replace("$", r"\Z"), text, re.ASCII) is not None


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_language_and_its_opposite(pattern: str) -> None:
    found = language(pattern)
    again, opposite = found.pattern(), (~found).pattern()
    for text in texts(600):
        assert (text in found) == matches(pattern, text) == matches(again, text) != matches(opposite, text), text


def test_comparing() -> None:
    assert not language("^a").meets(language("^b"))
    assert language("^a").meets(language("b$"))
    assert (language("^[a-c]$") & ~language("b")).words(10) == ["a", "c"]
    assert language("^a*$").words(10) is None


def test_all_texts_but_some() -> None:
    words = ["abc", "ab", "x", ""]
    pattern = other_texts(words)
    for text in [*words, *texts(300)]:
        assert matches(pattern, text) == (text not in words)


@pytest.mark.parametrize("pattern", ["(a", "(?=a)b", "\\bfoo", "(a)\\1", "(?i)a", "a{1,9000}", "[[a]"])
def test_what_is_not_regular_here(pattern: str) -> None:
    with pytest.raises(NotRegular):
        language(pattern)


def test_look_ahead_at_the_beginning() -> None:
    assert split_lookahead("^(?=.*[)(])(?!x)a$") == (["^a$", "^(?:.*[)(])"], ["^(?:x)"])
    for other in ("^a(?=b)", "(?=a)b", "^(?!a)b|c", "^a"):
        assert split_lookahead(other) is None
