"""The page allocator: conservation, reference counts, prefix cache, eviction."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxserve.engine.pages import PageAllocator


def held(*sequences: list[int]) -> Counter[int]:
    return Counter(page for pages in sequences for page in pages)


def store(pages: PageAllocator, key: str, tokens: tuple[int, ...]) -> list[int]:
    """A sequence of these tokens whose full pages are registered; still held."""
    size = pages.page_size
    own = pages.allocate(-(-len(tokens) // size))
    for index in range(len(tokens) // size):
        before = own[index - 1] if index else key
        own[index] = pages.register(before, tokens[index * size : (index + 1) * size], own[index])
    return own


def test_page_zero_is_never_given_out() -> None:
    pages = PageAllocator(6, 4)
    assert sorted(pages.allocate(5)) == [1, 2, 3, 4, 5]
    assert pages.available == 0


def test_too_many_pages_are_refused_and_nothing_is_taken() -> None:
    pages = PageAllocator(4, 4)
    with pytest.raises(ValueError, match="4 pages wanted, 3 available"):
        pages.allocate(4)
    pages.check({})
    assert pages.available == 3


@pytest.mark.parametrize(("num_pages", "page_size"), [(1, 4), (4, 0)])
def test_impossible_sizes_are_refused(num_pages: int, page_size: int) -> None:
    with pytest.raises(ValueError, match="need at least 2 pages"):
        PageAllocator(num_pages, page_size)


def test_a_page_is_free_when_the_last_holder_gives_it_up() -> None:
    pages = PageAllocator(4, 4)
    own = pages.allocate(2)
    pages.acquire(own)
    pages.release(own)
    assert pages.available == 1
    pages.check(held(own))
    pages.release(own)
    assert pages.available == 3
    pages.check({})


def test_lookup_finds_full_pages_up_to_the_limit() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(10))
    own = store(pages, "", tokens)
    assert pages.lookup("", tokens, 10) == own[:2], "the third page is not full"
    assert pages.lookup("", tokens, 8) == own[:2]
    assert pages.lookup("", tokens, 7) == own[:1]
    assert pages.lookup("", (*tokens[:4], 99, 99, 99, 99), 8) == own[:1]
    assert pages.lookup("", tokens[4:], 6) == [], "the same page content after another beginning is another page"


def test_isolation_keys_separate_equal_prompts() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(8))
    own = store(pages, "a", tokens)
    assert pages.lookup("b", tokens, 8) == []
    assert pages.lookup("a", tokens, 8) == own


def test_equal_hashes_of_different_tokens_share_nothing() -> None:
    assert hash((-1,) * 4) == hash((-2,) * 4), "CPython: -1 and -2 have one hash"
    pages = PageAllocator(8, 4)
    store(pages, "", (-1,) * 4)
    assert pages.lookup("", (-2,) * 4, 4) == []


def test_content_stays_after_release_and_can_be_acquired_again() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(8))
    own = store(pages, "", tokens)
    pages.release(own)
    assert (pages.available, pages.idle) == (7, 2)
    found = pages.lookup("", tokens, 8)
    assert found == own
    assert pages.available_beside(found) == 5
    pages.acquire(found)
    assert (pages.available, pages.idle) == (5, 0)
    pages.check(held(found))


def test_eviction_takes_free_pages_first_then_the_least_recently_used_from_the_end() -> None:
    pages = PageAllocator(6, 1)
    old, new = store(pages, "", (1, 2)), store(pages, "", (8, 9))
    pages.release(old)
    pages.release(new)
    pages.allocate(1)
    assert pages.lookup("", (1, 2), 2) == old
    pages.allocate(1)
    assert pages.lookup("", (1, 2), 2) == old[:1], "the leaf of the older prefix goes first"
    assert pages.lookup("", (8, 9), 2) == new
    pages.acquire(old[:1])
    pages.release(old[:1])
    pages.allocate(2)
    assert pages.lookup("", (1,), 1) == old[:1], "used since"
    assert pages.lookup("", (8,), 1) == []


def test_a_page_computed_twice_is_kept_once() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(8))
    first, second = store(pages, "", tokens), store(pages, "", tokens)
    assert first == second
    assert pages.available == 5
    pages.check(held(first, second))


def test_what_follows_an_evicted_page_is_not_found_through_its_next_tenant() -> None:
    pages = PageAllocator(5, 1)
    canonical = store(pages, "", (1,))
    # A second holder of the same beginning that keeps its own first page, and the continuation of the canonical one.
    parent, child = canonical[0], pages.allocate(1)[0]
    child = pages.register(parent, (2,), child)
    pages.release([parent])
    pages.allocate(2)
    tenant = pages.allocate(1)[0]
    assert tenant == parent, "evicted although its continuation is held"
    assert pages.register("", (7,), tenant) == tenant
    assert pages.lookup("", (7, 2), 2) == [tenant]
    assert pages.lookup("", (1, 2), 2) == []
    again = pages.register(tenant, (3,), child)
    assert again == child
    assert pages.lookup("", (7, 3), 2) == [tenant, child], "a page known under a lost parent is filed anew"
    pages.check(Counter(dict.fromkeys(range(1, 5), 1)))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda pages: pages._free.append(pages._free[0]), "free twice"),
        (lambda pages: pages._free.pop(), "not exactly one"),
        (lambda pages: pages._references.__setitem__(1, 2), "2 references, 1 are accounted for"),
        (lambda pages: pages._idle.update({1: None}), "not exactly one"),
        (lambda pages: pages._block_of.clear(), "unknown to the prefix cache|directions disagree"),
    ],
)
def test_check_sees_what_is_wrong(corrupt, message: str) -> None:  # type: ignore[no-untyped-def]
    pages = PageAllocator(6, 1)
    own, idle = store(pages, "", (1,)), store(pages, "", (2,))
    pages.release(idle)
    pages.check(held(own))
    corrupt(pages)
    with pytest.raises(RuntimeError, match=message):
        pages.check(held(own))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(3, 14),
    st.integers(1, 3),
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["", "k"]), st.lists(st.integers(0, 1), min_size=1, max_size=9)),
        max_size=40,
    ),
)
def test_any_history_keeps_pages_and_finds_only_equal_content(
    num_pages: int, size: int, history: list[tuple[bool, str, list[int]]]
) -> None:
    """Sequences come (reusing what is cached) and go at random; a hit always holds exactly the wanted prefix."""
    pages = PageAllocator(num_pages, size)
    live: list[list[int]] = []
    content: dict[int, tuple[str, tuple[int, ...]]] = {}
    for arrives, key, ids in history:
        if arrives:
            tokens = tuple(ids)
            hits = pages.lookup(key, tokens, len(tokens))
            for index, page in enumerate(hits):
                assert content[page] == (key, tokens[: (index + 1) * size])
            count = -(-len(tokens) // size) - len(hits)
            if count > pages.available_beside(hits):
                continue
            pages.acquire(hits)
            own = [*hits, *pages.allocate(count)]
            for index in range(len(hits), len(tokens) // size):
                before = own[index - 1] if index else key
                own[index] = pages.register(before, tokens[index * size : (index + 1) * size], own[index])
                content[own[index]] = key, tokens[: (index + 1) * size]
            live.append(own)
        elif live:
            pages.release(live.pop(len(ids) % len(live)))
        pages.check(held(*live))
    for own in live:
        pages.release(own)
    pages.check({})
    assert pages.available == num_pages - 1
