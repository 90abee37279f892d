"""Which pages each running sequence holds: its blocks in every page group, and what it shares through the prefix cache.

A group without a window keeps the pages of all positions, and gets them for all known tokens at once. A group with a
window gets pages chunk by chunk and gives a page up as soon as a step has been committed after which no query sees it
any more: a sequence of any length holds no more of them than window, steps in flight and next chunk cover.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

from jaxserve.config import table_columns
from jaxserve.engine.pages import CachedPrefix, HeldPages, PageAllocator, PageRun
from jaxserve.engine.sequence import Sequence


class Paging:
    """Pages of sequences, in numbers only.

    Args:
        num_pages: P, KV pages counting the reserved page 0.
        page_size: positions per page.
        windows: window of each page group; None = no window.
        max_model_len: positions of one sequence at most.
        token_budget: tokens of one step at most.

    Raises:
        ValueError: one sequence of the full context does not fit.
    """

    def __init__(
        self, num_pages: int, page_size: int, windows: tuple[int | None, ...], max_model_len: int, token_budget: int
    ) -> None:
        self._columns = table_columns(windows, max_model_len, page_size, token_budget)
        needed = sum(self._columns)
        if num_pages - 1 < needed:
            raise ValueError(
                f"one sequence of {max_model_len} tokens needs {needed} pages of {page_size}, there are {num_pages - 1}"
            )
        self.page_size = page_size
        self._pages = PageAllocator(num_pages, page_size, windows)
        self._windows = windows
        self._sliding = tuple((group, window) for group, window in enumerate(windows) if window is not None)
        self._groups_of: dict[int, list[int]] = {}
        for group, window in self._sliding:
            self._groups_of.setdefault(window, []).append(group)

    @property
    def available(self) -> int:
        """Pages that no sequence holds."""
        return self._pages.available

    @property
    def idle(self) -> int:
        """Pages that no sequence holds and the prefix cache keeps."""
        return self._pages.idle

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Verify that pages are conserved; `sequences` are all that run.

        Raises:
            RuntimeError: they are not; the message says what is wrong.
        """
        held = list(sequences)
        pages = Counter(page for sequence in held for run in sequence.pages.runs for page in run.pages)
        self._pages.check(pages, Counter(s.pages.block for s in held if s.pages.block is not None))

    # Prefixes

    def lookup(self, key: str, tokens: tuple[int, ...], limit: int, multiple: int) -> CachedPrefix:
        """See `PageAllocator.lookup`."""
        return self._pages.lookup(key, tokens, limit, multiple)

    def nothing(self) -> CachedPrefix:
        """The empty prefix."""
        return CachedPrefix(0, [PageRun() for _ in self._windows])

    def shared(self, donor: Sequence, position: int) -> CachedPrefix | None:
        """The first `position` tokens (full blocks) of a running sequence that has computed them.

        None if it has given up pages that whatever follows would read.
        """
        blocks = position // self.page_size
        runs = []
        for run, window in zip(donor.pages.runs, self._windows, strict=True):
            first = self._pages.first_needed(window, position)
            if run.first > first:
                return None
            runs.append(run.part(first, blocks))
        known, block = donor.pages.registered, donor.pages.block
        while known > blocks and block is not None:
            known, block = known - 1, block.parent
        return CachedPrefix(blocks, runs, block, known)

    # Holding

    def start(self, sequence: Sequence, prefix: CachedPrefix, end: int, reserve: int) -> bool:
        """Give a sequence that holds nothing a prefix, and pages to compute from there to `end`.

        Nothing happens unless `reserve` pages stay available beside what its later chunks will need.

        Returns:
            Whether it holds them now.
        """
        blocks, whole = self._blocks(end), self._blocks(sequence.length)
        counts = [
            (whole if window is None else blocks) - run.end
            for run, window in zip(prefix.pages, self._windows, strict=True)
        ]
        later = self._outstanding(prefix.blocks * self.page_size, sequence.length, blocks)
        if sum(counts) + later + reserve > self._pages.available_beside(prefix.ids):
            return False
        self._pages.acquire(prefix)
        pages = self._pages.allocate(sum(counts))
        taken = 0
        for run, count in zip(prefix.pages, counts, strict=True):
            run.pages.extend(pages[taken : taken + count])
            taken += count
        room = (blocks if self._sliding else whole) * self.page_size
        sequence.pages = HeldPages(prefix.pages, room, prefix.known, prefix.block)
        return True

    def has_room(self, sequence: Sequence, end: int) -> bool:
        """Whether positions up to `end` can be computed with the pages it holds."""
        return end <= sequence.pages.room

    def missing(self, sequence: Sequence, end: int) -> int:
        """Pages to allocate before positions up to `end` can be computed."""
        blocks = self._blocks(end)
        return sum(max(0, blocks - run.end) for run in sequence.pages.runs)

    def grow(self, sequence: Sequence, end: int) -> None:
        """Allocate them."""
        blocks = self._blocks(end)
        for run in sequence.pages.runs:
            if run.end < blocks:
                run.pages.extend(self._pages.allocate(blocks - run.end))
        sequence.pages.room = max(sequence.pages.room, blocks * self.page_size)

    def outstanding(self, sequence: Sequence) -> int:
        """Pages that the known tokens of a running sequence will need beyond those it holds."""
        room = sequence.pages.room
        if sequence.length <= room or not self._sliding:
            return 0
        return self._outstanding(sequence.computed, sequence.length, room // self.page_size)

    def returning(self, sequence: Sequence) -> bool:
        """Whether a sequence will give up pages when what it has in flight is committed."""
        return any(
            sequence.pages.runs[group].first < self._pages.first_needed(window, sequence.computed)
            for group, window in self._sliding
        )

    def table(self, sequence: Sequence, start: int, end: int) -> tuple[tuple[int, array[int]], ...]:
        """In each group, the first block that computing positions [start, end) reads or writes, and the pages of the
        blocks from there on."""
        if not self._sliding:
            return tuple([(0, run.pages[:]) for run in sequence.pages.runs])
        size, blocks, table = self.page_size, self._blocks(end), []
        for run, window in zip(sequence.pages.runs, self._windows, strict=True):
            first = 0 if window is None or start < window else (start - window + 1) // size
            table.append((first, run.pages[first - run.first : blocks - run.first]))
        return tuple(table)

    def register(self, sequence: Sequence, end: int) -> None:
        """Offer the blocks that the first `end` positions fill, all of them computed, to the prefix cache."""
        if sequence.request.cache_max_len is not None:
            end = min(end, sequence.request.cache_max_len)
        size = self.page_size
        while (start := sequence.pages.registered * size) + size <= end:
            self._register_next(sequence, sequence.content_ids(start, start + size))

    def _register_next(self, sequence: Sequence, tokens: tuple[int, ...]) -> None:
        """Offer the first block that the prefix cache does not know, computed from `tokens`."""
        held = sequence.pages
        index = held.registered
        pages = [run.pages[index - run.first] if index >= run.first else 0 for run in held.runs]
        before = held.block if held.block is not None else sequence.request.cache_key
        held.block = self._pages.register(before, tokens, pages)
        for run, page, kept in zip(held.runs, pages, held.block.pages, strict=True):
            if page != kept and page:
                run.pages[index - run.first] = kept
        held.registered += 1

    def give_up(self, sequence: Sequence, position: int) -> None:
        """Release the pages that no query at `position` or later reads. What is to be cached has been registered."""
        runs = sequence.pages.runs
        for window, groups in self._groups_of.items():
            first = self._pages.first_needed(window, position)
            if first <= runs[groups[0]].first:
                continue  # groups of one window hold the same blocks
            for run in map(runs.__getitem__, groups):
                self._pages.release(run.pages[: first - run.first])
                del run.pages[: first - run.first]
                run.first = first

    def vacate(self, sequence: Sequence) -> None:
        """Release everything."""
        self._pages.release(_by_position(sequence.pages.runs), sequence.pages.block)
        sequence.pages = HeldPages()

    def _outstanding(self, position: int, length: int, blocks: int) -> int:
        """Pages that sliding groups need at once for the tokens in [position, length), beyond those up to `blocks`."""
        whole, total = self._blocks(length), 0
        for group, window in self._sliding:
            first = self._pages.first_needed(window, position)
            total += max(0, min(whole - first, self._columns[group]) - (blocks - first))
        return total

    def _blocks(self, positions: int) -> int:
        return -(-positions // self.page_size)


def _by_position(runs: list[PageRun]) -> array[int] | list[int]:
    """Pages of several groups, blocks in order: what lies in one block leaves the cache together."""
    if len(runs) == 1:
        return runs[0].pages
    return [
        page for _, page in sorted((block, page) for run in runs for block, page in enumerate(run.pages, run.first))
    ]
