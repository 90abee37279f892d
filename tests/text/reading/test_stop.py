"""Stop texts: found across borders, never leaked, independent of how the text is cut, in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxserve.text import StopMatcher


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """What a stream of pieces emits, and the stop that matched."""
    matcher = StopMatcher(stops)
    out = []
    for piece in pieces:
        text, stop = matcher.push(piece)
        out.append(text)
        if stop is not None:
            assert matcher.push("more") == ("", None)
            assert matcher.flush() == ""
            return "".join(out), stop
    return "".join(out) + matcher.flush(), None


def by_definition(stops: list[str], text: str) -> tuple[str, str | None]:
    """Slow and obvious: the stop that is complete first; of several, the longest."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


words = st.text(alphabet="ab🦙", min_size=1, max_size=4)


@settings(max_examples=600, deadline=None)
@given(stops=st.lists(words, max_size=4), pieces=st.lists(st.text(alphabet="ab🦙", max_size=5), max_size=12))
def test_equals_the_definition_however_the_text_is_cut(stops: list[str], pieces: list[str]) -> None:
    expected = by_definition(stops, "".join(pieces))
    assert run(stops, pieces) == expected
    assert run(stops, list("".join(pieces))) == expected


@settings(max_examples=400, deadline=None)
@given(stops=st.lists(words, min_size=1, max_size=4), pieces=st.lists(st.text(alphabet="ab", max_size=3), max_size=10))
def test_emits_at_once_whatever_can_no_longer_become_a_stop(stops: list[str], pieces: list[str]) -> None:
    matcher, text, emitted = StopMatcher(stops), "", ""
    for piece in pieces:
        text += piece
        out, stop = matcher.push(piece)
        emitted += out
        if stop is not None:
            return
        held = text[len(emitted) :]
        assert text == emitted + held
        assert not held or any(stop.startswith(held) for stop in stops)
        longer = text[max(0, len(emitted) - 1) :] if emitted else ""
        assert not longer or not any(stop.startswith(longer) for stop in stops)


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["END"], ["the E", "N", "D of"], ("the ", "END")),
        (["END"], ["the EN", "ough"], ("the ENough", None)),
        (["aab"], ["aa", "aab"], ("aa", "aab")),
        (["abcd", "bc"], ["abcd"], ("a", "bc")),
        (["bc", "abc"], ["xabc"], ("x", "abc")),
        (["\n\n", "\nUser"], ["hi\n", "User:"], ("hi", "\nUser")),
        (["<|end_story|>"], ["Bye.", "<|", "end", "_story", "|>"], ("Bye.", "<|end_story|>")),
        ([], ["a", "b"], ("ab", None)),
        (["x"], [""], ("", None)),
        (["b", "b"], ["ab"], ("a", "b")),
    ],
)
def test_examples(stops: list[str], pieces: list[str], expected: tuple[str, str | None]) -> None:
    assert run(stops, pieces) == expected


def test_nothing_of_a_stop_is_emitted_before_it_is_decided() -> None:
    matcher = StopMatcher(["stop"])
    assert [matcher.push(piece) for piece in ("a s", "to", "p!")] == [("a ", None), ("", None), ("", "stop")]


def test_empty_stop_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])


def test_linear_time_in_the_worst_case() -> None:
    """A long stop that almost matches everywhere; rescanning would take minutes."""
    stop = "a" * 2000 + "b"
    matcher = StopMatcher([stop])
    start = time.thread_time()
    for _ in range(20_000):
        matcher.push("a" * 5)
    assert time.thread_time() - start < 5
    assert len(matcher.flush()) == 2000
