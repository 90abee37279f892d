"""What is remembered, for how long, and how often it is worked out."""

from __future__ import annotations

import threading
import time

import pytest

from jaxserve.text.grammar.memory import Memory, NotReady


def sized(value: str, size: int = 1):
    return lambda: (value, size)


def refuse():
    raise ValueError("not this time")


def unexpected():
    raise AssertionError("worked out again")


@pytest.mark.parametrize(("most", "most_bytes", "size"), [(2, 1000, 1), (100, 20, 10)])
def test_the_least_recently_used_goes_first(most, most_bytes, size):
    memory = Memory(most, most_bytes)
    for key in ("a", "b"):
        memory.get(key, sized(key, size))
    memory.get("a", unexpected)
    memory.get("c", sized("c", size))
    assert memory.get("a", unexpected) == "a"
    assert memory.get("b", sized("again", size)) == "again"


def test_what_is_larger_than_everything_is_given_and_not_kept():
    memory = Memory(10, 100)
    memory.get("small", sized("small"))
    assert memory.get("huge", sized("huge", 1000)) == "huge"
    assert memory.get("huge", sized("once more")) == "once more"


def test_several_threads_work_it_out_once():
    memory, made, got = Memory(10, 1000), [], []

    def make():
        made.append(1)
        time.sleep(0.1)
        return "result", 1

    threads = [threading.Thread(target=lambda: got.append(memory.get("key", make))) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    with pytest.raises(NotReady):
        memory.get("key", unexpected, wait=False)
    for thread in threads:
        thread.join()
    assert (len(made), got) == (1, ["result"] * 8)
    assert memory.get("key", unexpected, wait=False) == "result"


def test_errors_are_not_remembered():
    memory = Memory(10, 1000)
    with pytest.raises(ValueError, match="not this time"):
        memory.get("key", refuse)
    with pytest.raises(NotReady):
        memory.get("key", unexpected, wait=False)
    assert memory.get("key", sized("now")) == "now"
