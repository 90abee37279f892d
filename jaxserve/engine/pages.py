"""KV pages: which are free, who holds the others, and which hold a prefix worth keeping.

In: counts, token ids, isolation keys. Out: page ids. Pure Python; knows neither requests nor devices.

Every page except page 0 (padding tokens write there) is at any moment exactly one of
  free    nothing of value in it,
  idle    held by nobody, but the prefix cache knows its content; the least recently used go first when no page is free,
  held    its reference count is positive (whether the cache knows it or not).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Block:
    """A full page in the prefix cache."""

    id: int
    """Never given out twice, so a block whose parent was evicted can't be reached through the page's next tenant."""
    parent: int | str
    """Id of the block before it; for the first page of a prompt, the isolation key."""
    tokens: tuple[int, ...]

    @property
    def key(self) -> tuple[int | str, tuple[int, ...]]:
        return self.parent, self.tokens


class PageAllocator:
    """Reference-counted pages 1..num_pages-1 with a prefix cache.

    The cache is one dictionary keyed by (parent block, the page's tokens), with the isolation key as the parent of
    first pages: a hash chained over the prompt, where the parent's id stands for everything before it. Keys are
    compared whole, so equal hashes of different tokens never share a page.

    Args:
        num_pages: P, counting the reserved page 0.
        page_size: token positions per page.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        if num_pages < 2 or page_size < 1:
            raise ValueError(f"need at least 2 pages of at least 1 token, got {num_pages} of {page_size}")
        self.page_size = page_size
        self._references = [0] * num_pages
        self._free = list(range(num_pages - 1, 0, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._page_of: dict[tuple[int | str, tuple[int, ...]], int] = {}
        self._block_of: dict[int, _Block] = {}
        self._ids = itertools.count()

    @property
    def available(self) -> int:
        """Pages that can be allocated: free and idle ones."""
        return len(self._free) + len(self._idle)

    @property
    def idle(self) -> int:
        """Pages that nobody holds and whose content the prefix cache keeps."""
        return len(self._idle)

    def available_beside(self, pages: Iterable[int]) -> int:
        """Pages that could still be allocated if `pages` were acquired."""
        return self.available - sum(page in self._idle for page in pages)

    def allocate(self, count: int) -> list[int]:
        """Take `count` pages of undefined content, evicting idle ones where none is free.

        Raises:
            ValueError: fewer than `count` pages are available; nothing is taken.
        """
        if count > self.available:
            raise ValueError(f"{count} pages wanted, {self.available} available")
        pages = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

    def acquire(self, pages: Iterable[int]) -> None:
        """Hold pages that are held already or idle once more."""
        for page in pages:
            if self._references[page] == 0:
                del self._idle[page]
            self._references[page] += 1

    def release(self, pages: Seq[int]) -> None:
        """Give up one reference to each of a sequence's pages, given in the order of their positions.

        Released last to first, so that a prefix becomes idle after its continuations and is evicted after them.
        """
        for page in reversed(pages):
            self._references[page] -= 1
            if self._references[page] == 0:
                if page in self._block_of:
                    self._idle[page] = None
                else:
                    self._free.append(page)

    def lookup(self, key: str, tokens: tuple[int, ...], limit: int) -> list[int]:
        """Cached pages that hold the beginning of `tokens`, covering at most `limit` of them. Acquires nothing."""
        pages: list[int] = []
        parent: int | str = key
        size = self.page_size
        for end in range(size, min(limit, len(tokens)) + 1, size):
            page = self._page_of.get((parent, tokens[end - size : end]))
            if page is None:
                break
            pages.append(page)
            parent = self._block_of[page].id
        return pages

    def register(self, before: int | str, tokens: tuple[int, ...], page: int) -> int:
        """Let the cache know a held page that is full and whose content has been computed.

        Args:
            before: the registered page before it in its sequence, or the isolation key for a first page.
            tokens: the page's token ids, `page_size` of them.
            page: the page; the caller holds a reference.

        Returns:
            The page to use from now on: `page`, or an equal one that the cache knew first. The caller's reference
            has moved to it, so what was computed twice at the same time is kept once.
        """
        parent = self._block_of[before].id if isinstance(before, int) else before
        known = self._page_of.get((parent, tokens))
        if known is None:
            self._forget(page)
            block = _Block(next(self._ids), parent, tokens)
            self._page_of[block.key] = page
            self._block_of[page] = block
            return page
        if known != page:
            self.acquire((known,))
            self.release((page,))
        return known

    def check(self, references: Mapping[int, int]) -> None:
        """Verify that pages are conserved and the cache is consistent. O(pages), for idle moments and tests.

        Args:
            references: how often each held page is held, counted by the caller from its own books.

        Raises:
            RuntimeError: something is lost, held wrongly or in two places; the message says what.
        """
        free, idle = set(self._free), set(self._idle)
        if len(free) != len(self._free):
            raise RuntimeError("a page is free twice")
        for page, counted in enumerate(self._references):
            if counted != references.get(page, 0):
                raise RuntimeError(f"page {page} has {counted} references, {references.get(page, 0)} are accounted for")
            if (page in free) + (page in idle) + (counted > 0) != (page > 0):
                raise RuntimeError(f"page {page} is not exactly one of free, idle and held")
        if not idle <= self._block_of.keys() or free & self._block_of.keys():
            raise RuntimeError("an idle page is unknown to the prefix cache, or a free one is known")
        blocks = self._block_of
        filed = (page in blocks and blocks[page].key == key for key, page in self._page_of.items())
        if len(self._page_of) != len(blocks) or not all(filed):
            raise RuntimeError("the prefix cache's two directions disagree")

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        self._forget(page)
        return page

    def _forget(self, page: int) -> None:
        block = self._block_of.pop(page, None)
        if block is not None:
            del self._page_of[block.key]
