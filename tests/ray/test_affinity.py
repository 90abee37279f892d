"""Which replica a request prefers: equal beginnings the same, and nobody moves who needs not."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from jaxserve.ray.affinity import affinity, in_order

LONG = "You are a helpful assistant. " * 40
TURNS = [{"role": "system", "content": LONG}, {"role": "user", "content": "Hello"}]
BODY = {"messages": TURNS}


def key(body, authorization="Bearer a"):
    return affinity(json.dumps(body).encode(), authorization.encode())


def test_later_turns_go_where_the_first_went():
    later = {"messages": [*TURNS, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Go on"}]}
    assert key(later) == key(BODY) == key(BODY | {"temperature": 0.3, "stream": True})


@pytest.mark.parametrize(
    ("body", "authorization"),
    [
        (BODY | {"prompt_cache_isolation_key": "x"}, "Bearer a"),
        (BODY | {"prompt_cache_key": "x"}, "Bearer a"),
        (BODY, "Bearer b"),
        ({"messages": [{"role": "system", "content": "Other. " + LONG}]}, "Bearer a"),
        ({"prompt": LONG}, "Bearer a"),
    ],
)
def test_whoever_shares_no_cache_has_another_key(body, authorization):
    assert key(body, authorization) != key(BODY)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"messages": 3}'])
def test_any_body_has_a_key(body):
    assert len(affinity(body, b"")) == 32


def test_replicas_share_the_keys_and_a_lost_one_moves_only_its_own():
    replicas = ["a", "b", "c"]
    keys = [str(number) for number in range(600)]
    first = {each: in_order(each, replicas)[0] for each in keys}
    assert min(Counter(first.values()).values()) > 120
    without = {each: in_order(each, ["a", "b"])[0] for each in keys}
    assert all(without[each] == first[each] for each in keys if first[each] != "c")
    assert set(Counter(without[each] for each in keys if first[each] == "c")) == {"a", "b"}
    assert in_order("x", reversed(replicas)) == in_order("x", replicas)
