"""The page allocator: conservation, reference counts, prefix cache, eviction, page groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxserve.engine.pages import Block, CachedPrefix, PageAllocator


@dataclass(eq=False)
class Held:
    """A sequence as the allocator knows it: pages of one group, in order of their positions, and its last block."""

    pages: list[int] = field(default_factory=list)
    block: Block | None = None


def check(pages: PageAllocator, *sequences: Held) -> None:
    blocks = Counter(s.block for s in sequences if s.block is not None)
    pages.check(Counter(page for s in sequences for page in s.pages), blocks)


def store(pages: PageAllocator, key: str, tokens: tuple[int, ...], prefix: CachedPrefix | None = None) -> Held:
    """A sequence of these tokens, after a prefix that is in the cache, whose full blocks are registered; still held."""
    size, own = pages.page_size, Held()
    if prefix is not None:
        pages.acquire(prefix)
        own = Held(prefix.pages[0].pages.tolist(), prefix.block)
    known = len(own.pages)
    own.pages += pages.allocate(-(-len(tokens) // size) - known)
    for index in range(known, len(tokens) // size):
        before = key if own.block is None else own.block
        own.block = pages.register(before, tokens[index * size : (index + 1) * size], [own.pages[index]])
        own.pages[index] = own.block.pages[0]
    return own


def release(pages: PageAllocator, own: Held) -> None:
    pages.release(own.pages, own.block)


def lookup(pages: PageAllocator, key: str, tokens: tuple[int, ...], limit: int) -> list[int]:
    return pages.lookup(key, tokens, limit).pages[0].pages.tolist()


def test_page_zero_is_never_given_out() -> None:
    pages = PageAllocator(6, 4)
    assert sorted(pages.allocate(5)) == [1, 2, 3, 4, 5]
    assert pages.available == 0


def test_too_many_pages_are_refused_and_nothing_is_taken() -> None:
    pages = PageAllocator(4, 4)
    with pytest.raises(ValueError, match="4 pages wanted, 3 available"):
        pages.allocate(4)
    check(pages)
    assert pages.available == 3


@pytest.mark.parametrize(("num_pages", "page_size"), [(1, 4), (4, 0)])
def test_impossible_sizes_are_refused(num_pages: int, page_size: int) -> None:
    with pytest.raises(ValueError, match="need at least 2 pages"):
        PageAllocator(num_pages, page_size)


def test_a_page_is_free_when_the_last_holder_gives_it_up() -> None:
    pages = PageAllocator(6, 4)
    own = store(pages, "", tuple(range(8)))
    other = store(pages, "", tuple(range(9)), pages.lookup("", tuple(range(8)), 8))
    assert other.pages[:2] == own.pages
    release(pages, own)
    assert (pages.available, pages.idle) == (2, 0)
    check(pages, other)
    release(pages, other)
    assert (pages.available, pages.idle) == (5, 2)
    check(pages)


def test_lookup_finds_full_pages_up_to_the_limit() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(10))
    own = store(pages, "", tokens).pages
    assert lookup(pages, "", tokens, 10) == own[:2], "the third page is not full"
    assert lookup(pages, "", tokens, 8) == own[:2]
    assert lookup(pages, "", tokens, 7) == own[:1]
    assert pages.lookup("", tokens, 10, 8).blocks == 2
    assert pages.lookup("", tokens, 7, 8).blocks == 0
    assert lookup(pages, "", (*tokens[:4], 99, 99, 99, 99), 8) == own[:1]
    assert lookup(pages, "", tokens[4:], 6) == [], "the same page content after another beginning is another page"


def test_isolation_keys_separate_equal_prompts() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(8))
    own = store(pages, "a", tokens)
    assert lookup(pages, "b", tokens, 8) == []
    assert lookup(pages, "a", tokens, 8) == own.pages


def test_equal_hashes_of_different_tokens_share_nothing() -> None:
    assert hash((-1,) * 4) == hash((-2,) * 4), "CPython: -1 and -2 have one hash"
    pages = PageAllocator(8, 4)
    store(pages, "", (-1,) * 4)
    assert lookup(pages, "", (-2,) * 4, 4) == []


def test_content_stays_after_release_and_can_be_acquired_again() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(8))
    own = store(pages, "", tokens)
    release(pages, own)
    assert (pages.available, pages.idle) == (7, 2)
    found = pages.lookup("", tokens, 8)
    assert found.pages[0].pages.tolist() == own.pages
    assert pages.available_beside(found.ids) == 5
    pages.acquire(found)
    assert (pages.available, pages.idle) == (5, 0)
    check(pages, own)


def test_eviction_takes_free_pages_first_then_the_least_recently_used_from_the_end() -> None:
    pages = PageAllocator(6, 1)
    old, new = store(pages, "", (1, 2)), store(pages, "", (8, 9))
    release(pages, old)
    release(pages, new)
    pages.allocate(1)
    assert lookup(pages, "", (1, 2), 2) == old.pages
    pages.allocate(1)
    assert lookup(pages, "", (1, 2), 2) == old.pages[:1], "the leaf of the older prefix goes first"
    assert lookup(pages, "", (8, 9), 2) == new.pages
    found = pages.lookup("", (1,), 1)
    pages.acquire(found)
    pages.release(found.ids, found.block)
    pages.allocate(2)
    assert lookup(pages, "", (1,), 1) == old.pages[:1], "used since"
    assert lookup(pages, "", (8,), 1) == []


def test_a_page_computed_twice_is_kept_once() -> None:
    pages = PageAllocator(8, 4)
    tokens = tuple(range(8))
    first, second = store(pages, "", tokens), store(pages, "", tokens)
    assert first.pages == second.pages
    assert pages.available == 5
    check(pages, first, second)


def evicted(pages: PageAllocator, group: int, own: Held) -> list[int]:
    """Which blocks of a sequence have no page in a group any more."""
    path, block = [], own.block
    while block is not None:
        path.append(block)
        block = block.parent
    return [index for index, block in enumerate(reversed(path)) if not block.pages[group]]


def grouped(windows: tuple[int | None, ...], blocks: int, size: int = 2) -> tuple[PageAllocator, tuple[int, ...], Held]:
    """A sequence of full blocks registered in all groups and given up: idle pages, least recently used first block."""
    pages = PageAllocator(1 + blocks * len(windows), size, windows)
    tokens, own = tuple(range(100, 100 + blocks * size)), Held()
    for index in range(blocks):
        ids = pages.allocate(len(windows))
        own.block = pages.register(own.block or "", tokens[index * size : (index + 1) * size], ids)
        pages.release(ids)
    return pages, tokens, own


def test_a_hit_needs_all_pages_of_full_groups_and_the_window_of_the_others() -> None:
    pages, tokens, own = grouped((None, 4), 5)
    found = pages.lookup("", tokens, 10)
    assert found.blocks == 5
    assert [(run.first, len(run.pages)) for run in found.pages] == [(0, 5), (3, 2)], "positions 7 to 9: blocks 3, 4"
    found = pages.lookup("", tokens, 6)
    assert [(run.first, len(run.pages)) for run in found.pages] == [(0, 3), (1, 2)]
    assert own.block is not None
    own.block.pages[1], gone = 0, own.block.pages[1]
    assert pages.lookup("", tokens, 10).blocks == 4, "the window of block 4 is complete"
    own.block.pages[1] = gone
    middle = own.block.parent
    assert middle is not None
    middle.pages[1] = 0
    assert pages.lookup("", tokens, 10).blocks == 3, "a hole in the window of 5 and of 4 blocks"
    middle.pages[0] = 0
    assert pages.lookup("", tokens, 10).blocks == 3
    first = middle.parent.parent if middle.parent is not None else None
    assert first is not None
    first.pages[0] = 0
    assert pages.lookup("", tokens, 10).blocks == 1, "the windows of 5, 4 and 3 blocks do not make up for it"


def test_the_window_alone_is_a_hit_and_the_tree_goes_with_its_last_page() -> None:
    pages, tokens, own = grouped((4,), 6)
    pages.release([], own.block)
    taken = pages.allocate(4)
    found = pages.lookup("", tokens, 12)
    assert (found.blocks, found.pages[0].first, len(found.ids)) == (6, 4, 2)
    assert pages.lookup("", tokens, 10).blocks == 0
    taken += pages.allocate(1)
    assert pages.lookup("", tokens, 12).blocks == 0, "a page of the window is gone"
    assert len(pages._blocks) == 6
    taken += pages.allocate(1)
    assert not pages._blocks, "nothing is left to lead to"
    pages.release(taken)
    check(pages)


def test_a_sequence_keeps_its_last_block_although_all_pages_are_gone() -> None:
    pages, _, own = grouped((4,), 3)
    taken = pages.allocate(3)
    check(pages, own, Held(taken))
    pages.release(taken[:1])
    (last,) = pages.allocate(1)
    own.block = pages.register(own.block or "", (1, 2), [last])
    assert len(pages._blocks) == 4
    pages.release([], own.block)
    check(pages, Held(taken))


def test_pages_that_a_block_lacks_are_filled_in() -> None:
    pages = PageAllocator(9, 1, (None, 1))
    first, *rest = pages.allocate(4)
    block = pages.register("", (7,), [first, 0])
    again = pages.register("", (7,), rest[:2])
    assert again is block
    assert block.pages == [first, rest[1]], "the known page stays, the unknown one comes in"
    assert block.users == 2
    check(pages, Held([first], block), Held([first, *rest[1:]], block))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda pages, block: pages._free.append(pages._free[0]), "free twice"),
        (lambda pages, block: pages._free.pop(), "not exactly one"),
        (lambda pages, block: pages._references.__setitem__(1, 2), "2 references, 1 are accounted for"),
        (lambda pages, block: pages._idle.update({1: None}), "not exactly one"),
        (lambda pages, block: pages._place_of.clear(), "unknown to the prefix cache"),
        (lambda pages, block: block.pages.__setitem__(0, 0), "directions disagree"),
        (lambda pages, block: pages._blocks.clear(), "directions disagree"),
        (lambda pages, block: setattr(block, "users", 2), "not accounted for"),
        (lambda pages, block: setattr(block, "key", ("x", (1,))), "filed wrongly"),
        (lambda pages, block: pages.register(block, (3,), [0]), "not accounted for"),
    ],
)
def test_check_sees_what_is_wrong(corrupt: Any, message: str) -> None:
    pages = PageAllocator(6, 1)
    own, idle = store(pages, "", (1,)), store(pages, "", (2,))
    release(pages, idle)
    check(pages, own)
    corrupt(pages, own.block)
    with pytest.raises(RuntimeError, match=message):
        check(pages, own)


def test_check_sees_blocks_that_lead_nowhere() -> None:
    pages = PageAllocator(6, 1)
    block = pages.register("", (3,), [0])
    check(pages, Held([], block))
    block.users = 0
    with pytest.raises(RuntimeError, match="leads nowhere"):
        check(pages)


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
    live: list[Held] = []
    content: dict[int, tuple[str, tuple[int, ...]]] = {}
    for arrives, key, ids in history:
        if arrives:
            tokens = tuple(ids)
            prefix = pages.lookup(key, tokens, len(tokens))
            for index, page in enumerate(prefix.ids):
                assert content[page] == (key, tokens[: (index + 1) * size])
            if -(-len(tokens) // size) - prefix.blocks > pages.available_beside(prefix.ids):
                continue
            own = store(pages, key, tokens, prefix)
            for index in range(prefix.blocks, len(tokens) // size):
                content[own.pages[index]] = key, tokens[: (index + 1) * size]
            live.append(own)
        elif live:
            release(pages, live.pop(len(ids) % len(live)))
        check(pages, *live)
    for own in live:
        release(pages, own)
    check(pages)
    assert pages.available == num_pages - 1
    pages.allocate(num_pages - 1)
    assert not pages._blocks, "every block goes with its last page"
