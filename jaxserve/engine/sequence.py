"""One choice of one request inside the engine: host bookkeeping only."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from jaxserve.engine.pages import HeldPages
from jaxserve.engine.requests import FinishReason, Request

IN_FLIGHT = -1
"""Token id that stands for "what this slot sampled last", still on the device."""


class SequenceState(enum.Enum):
    """Where a sequence is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """One choice of one request. `pages` is written by `paging` alone, everything else by the scheduler."""

    request: Request
    choice: int
    arrival: int
    """Order of arrival, which ranks it among those of the same turn."""
    turn: int = 0
    """Ranks it among its kind; see `line`."""
    output: list[int] = field(default_factory=list)
    """Committed output tokens."""
    state: SequenceState = SequenceState.WAITING
    slot: int = -1
    """Row of the device's slot state while running, else -1."""
    pages: HeldPages = field(default_factory=HeldPages)
    """What it holds while running; empty otherwise."""
    computed: int = 0
    """Positions whose KV has been launched (or found in the prefix cache)."""
    sampled: int = 0
    """Output tokens launched so far: `len(output)` plus those in flight, as if all drafts were right."""
    drafted: int = 0
    """Drafts launched and not yet known to be right."""
    branch: int = 0
    """Times that drafts have turned out to be wrong, and what was launched behind them void."""
    cached: int = 0
    """Prompt tokens found in the prefix cache at first admission."""
    in_flight: int = 0
    """Rows of this sequence that have been planned and not yet committed."""
    preemptions: int = 0
    finish_reason: FinishReason | None = None

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Lower comes first."""
        return not self.request.priority, self.turn, self.arrival

    @property
    def tokens(self) -> list[int]:
        """Prompt and committed output."""
        return [*self.request.prompt, *self.output]

    @property
    def length(self) -> int:
        """Positions that exist once everything launched has been committed."""
        return len(self.request.prompt) + self.sampled

    def token_ids(self, start: int, end: int) -> tuple[int, ...]:
        """Token ids of positions [start, end); only the last may be in flight."""
        prompt, output = self.request.prompt, self.output
        if end <= len(prompt):
            return prompt[start:end]
        known = prompt[start:] + tuple(output[max(0, start - len(prompt)) : end - len(prompt)])
        return known if len(known) == end - start else (*known, IN_FLIGHT)

    def content_ids(self, start: int, end: int) -> tuple[int, ...]:
        """As `token_ids`, with an image's digest in place of its placeholders: what the positions compute follows."""
        ids = self.token_ids(start, end)
        for placed in self.request.images:
            first, last = max(placed.start, start), min(placed.end, end)
            if first < last:
                ids = ids[: first - start] + (placed.image.digest,) * (last - first) + ids[last - start :]
        return ids
