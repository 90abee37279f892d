"""KV pages: which are free, who holds the others, and which hold a prefix worth keeping.

In: counts, token ids, isolation keys. Out: page ids. Pure Python; knows neither requests nor devices.

Every page except page 0 (padding tokens write there) is at any moment exactly one of
  free    nothing of value in it,
  idle    held by nobody, but the prefix cache knows its content; the least recently used go first when no page is free,
  held    its reference count is positive (whether the cache knows it or not).

The prefix cache is a tree of blocks, `page_size` tokens each. What a block computed lies in one page for each page
group of the model, and each of these pages is held, idle or evicted on its own: a group with a sliding window needs
only the last blocks of a prefix, so a block stays in the tree without any page while another follows it.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field


@dataclass(slots=True)
class PageRun:
    """Pages of consecutive blocks of one sequence in one page group; block b is positions b * page_size and on."""

    first: int = 0
    """Block of the first page; the blocks before it have been given up, or were never held."""
    pages: array[int] = field(default_factory=lambda: array("i"))

    @property
    def end(self) -> int:
        """The block after the last."""
        return self.first + len(self.pages)

    def part(self, first: int, end: int) -> PageRun:
        """A copy of the pages of blocks [first, end), all of them held."""
        return PageRun(first, self.pages[first - self.first : end - self.first])


@dataclass(eq=False, slots=True)
class Block:
    """A block of tokens after a certain beginning."""

    id: int
    """Never given out twice."""
    parent: Block | None = field(repr=False)
    """The block before it; None for the first of a prompt."""
    key: tuple[int | str, tuple[int, ...]]
    """The parent's id (for a first block: the isolation key) and the block's tokens."""
    pages: list[int]
    """Its page in each page group, 0 where none is known."""
    users: int = 0
    """Blocks that follow it, and sequences whose known beginning ends with it."""


@dataclass(frozen=True)
class CachedPrefix:
    """The beginning of a sequence in pages that are held or idle."""

    blocks: int
    """Its length."""
    pages: list[PageRun]
    """In each page group, the pages that whatever follows may read: all, or those within the window."""
    block: Block | None = None
    """The last block that the prefix cache knows."""
    known: int = 0
    """How many blocks it knows."""
    ids: array[int] = field(init=False)
    """All pages."""

    def __post_init__(self) -> None:
        ids = array("i")
        for run in self.pages:
            ids += run.pages
        object.__setattr__(self, "ids", ids)


@dataclass(slots=True)
class HeldPages:
    """What one sequence holds. Only `paging` writes it."""

    runs: list[PageRun] = field(default_factory=list)
    """Its pages in each page group."""
    room: int = 0
    """Positions before which every page group has the pages that are still to be written."""
    registered: int = 0
    """Leading blocks that the prefix cache knows."""
    block: Block | None = None
    """The last of these."""

    def __bool__(self) -> bool:
        return bool(self.runs or self.registered)


class PageAllocator:
    """Reference-counted pages 1..num_pages-1 with a prefix cache.

    The cache is one dictionary keyed by (parent block, the block's tokens), with the isolation key as the parent of
    first blocks: a hash chained over the prompt, where the parent's id stands for everything before it. Keys are
    compared whole, so equal hashes of different tokens never share a page.

    Args:
        num_pages: P, counting the reserved page 0.
        page_size: token positions per page.
        windows: window of each page group; None = queries read everything before them.
    """

    def __init__(self, num_pages: int, page_size: int, windows: tuple[int | None, ...] = (None,)) -> None:
        if num_pages < 2 or page_size < 1:
            raise ValueError(f"need at least 2 pages of at least 1 token, got {num_pages} of {page_size}")
        self.page_size = page_size
        self.windows = windows
        self._references = [0] * num_pages
        self._free = list(range(num_pages - 1, 0, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._blocks: dict[tuple[int | str, tuple[int, ...]], Block] = {}
        self._place_of: dict[int, tuple[Block, int]] = {}  # block and group of each page that the cache knows
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

    def first_needed(self, window: int | None, position: int) -> int:
        """The first block with a key that a query at `position` or later reads in a group of this window."""
        return 0 if window is None else max(0, position - window + 1) // self.page_size

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

    def acquire(self, prefix: CachedPrefix) -> None:
        """Hold a prefix: its pages once more, and its last known block."""
        self._hold(prefix.ids)
        if prefix.block is not None:
            prefix.block.users += 1

    def release(self, pages: Seq[int], block: Block | None = None) -> None:
        """Give up one reference to each of a sequence's pages, given in the order of their positions.

        Released last to first, so that a prefix becomes idle after its continuations and is evicted after them.

        Args:
            pages: the pages.
            block: the last known block, for a sequence that gives up everything.
        """
        for page in reversed(pages):
            self._references[page] -= 1
            if self._references[page] == 0:
                if page in self._place_of:
                    self._idle[page] = None
                else:
                    self._free.append(page)
        if block is not None:
            block.users -= 1
            self._prune(block)

    def lookup(self, key: str, tokens: tuple[int, ...], limit: int, multiple: int | None = None) -> CachedPrefix:
        """The longest cached beginning of `tokens` after which a sequence can go on. Acquires nothing.

        Args:
            key: isolation key.
            tokens: the sequence.
            limit: at most this many tokens are covered.
            multiple: the number covered is a multiple of this (by default of the page size).
        """
        size, windows = self.page_size, self.windows
        path: list[Block] = []
        usable = 0
        parent: int | str = key
        complete = [0] * len(windows)  # from this block on, each group has all pages
        for end in range(size, min(limit, len(tokens)) + 1, size):
            block = self._blocks.get((parent, tokens[end - size : end]))
            if block is None:
                break
            path.append(block)
            parent = block.id
            if 0 in block.pages:
                complete = [since if page else len(path) for since, page in zip(complete, block.pages, strict=True)]
            if end % (multiple or size) == 0 and (
                not any(complete)
                or all(since <= self.first_needed(w, end) for since, w in zip(complete, windows, strict=True))
            ):
                usable = len(path)
        runs = []
        for group, window in enumerate(windows):
            first = self.first_needed(window, usable * size)
            runs.append(PageRun(first, array("i", [block.pages[group] for block in path[first:usable]])))
        return CachedPrefix(usable, runs, path[usable - 1] if usable else None, usable)

    def register(self, before: Block | str, tokens: tuple[int, ...], pages: list[int]) -> Block:
        """Let the cache know a block whose content has been computed.

        Args:
            before: the registered block before it, which the caller uses, or the isolation key for a first block.
            tokens: the block's token ids, `page_size` of them.
            pages: its page in each page group, 0 where the caller holds none.

        Returns:
            The block; the caller's use of `before` has moved to it. Its pages are the ones to use from now on: the
            caller's, or equal ones that the cache knew first. The caller's references have moved to them, so what was
            computed twice at the same time is kept once.
        """
        parent = before if isinstance(before, Block) else None
        key = (before.id if isinstance(before, Block) else before, tokens)
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = Block(next(self._ids), parent, key, [0] * len(self.windows))
        elif parent is not None:
            parent.users -= 1  # a new block takes the caller's place there
        block.users += 1
        for group, (known, page) in enumerate(zip(block.pages, pages, strict=True)):
            if page and not known:
                block.pages[group] = page
                self._place_of[page] = block, group
            elif page and known != page:
                self._hold((known,))
                self.release((page,))
        return block

    def check(self, references: Mapping[int, int], users: Counter[Block]) -> None:
        """Verify that pages are conserved and the cache is consistent. O(pages), for idle moments and tests.

        Args:
            references: how often each held page is held, counted by the caller from its own books.
            users: how many sequences use each block.

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
        if not idle <= self._place_of.keys() or free & self._place_of.keys():
            raise RuntimeError("an idle page is unknown to the prefix cache, or a free one is known")
        self._check_blocks(users)

    def _check_blocks(self, users: Counter[Block]) -> None:
        places = {
            page: (block, group) for block in self._blocks.values() for group, page in enumerate(block.pages) if page
        }
        if places != self._place_of:
            raise RuntimeError("the prefix cache's two directions disagree")
        counted = users + Counter(block.parent for block in self._blocks.values() if block.parent is not None)
        for key, block in self._blocks.items():
            if block.key != key or (
                block.parent is not None and self._blocks.get(block.parent.key) is not block.parent
            ):
                raise RuntimeError("a block of the prefix cache is filed wrongly")
            if block.users != counted.pop(block, 0):
                raise RuntimeError("a block of the prefix cache has users that are not accounted for")
            if block.users == 0 and not any(block.pages):
                raise RuntimeError("the prefix cache keeps a block that leads nowhere")
        if counted:
            raise RuntimeError("a block in use is not in the prefix cache")

    def _hold(self, pages: Iterable[int]) -> None:
        for page in pages:
            if self._references[page] == 0:
                del self._idle[page]
            self._references[page] += 1

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        block, group = self._place_of.pop(page)
        block.pages[group] = 0
        self._prune(block)
        return page

    def _prune(self, block: Block | None) -> None:
        """Drop a block that has no page and no user, and what only led to it."""
        while block is not None and block.users == 0 and not any(block.pages):
            del self._blocks[block.key]
            block = block.parent
            if block is not None:
                block.users -= 1
