"""Which sequence computes what in the next step: continuous batching with chunked prefill over paged KV.

In: `Request`s, and what steps sampled. Out: `Plan`s. Pure Python; owns slots and pages as numbers only.

Order is everything here. Sequences have a rank: those of priority requests come before all others, and among equals
whose turn it is (`line`: one client's sequences as they arrived, clients alternately). They are admitted strictly by
rank, and the one of the lowest rank is the first to lose its pages, so everything running ranks before all of its kind
that waits. The sequence of the highest rank therefore always advances, and by induction every sequence ends, unless
priority requests never cease to come.

Drafts are added last, to what has been planned: they take what the step has room for anyway, and nobody waits for them.
A sequence whose drafts are in flight goes on as if they were right where others make a step; alone it waits to know.

A step may be planned before the one before it has been committed. The device runs programs in the order of their
launch, so what a planned step writes may be read by any later one, and a page or slot given up now can be handed on
at once: whatever still reads it was launched before whatever overwrites it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from operator import attrgetter

from jaxserve.config import MAX_DRAFTS, EngineConfig
from jaxserve.engine.calls import Calls
from jaxserve.engine.drafting import NO_DRAFTS, Propose, Room
from jaxserve.engine.image_pool import ImagePool
from jaxserve.engine.line import Line
from jaxserve.engine.pages import CachedPrefix
from jaxserve.engine.paging import Paging
from jaxserve.engine.plan import Advance, Plan, PlannedImage, PlannedRow, RowResult, SampledToken
from jaxserve.engine.requests import DraftOrigin, FinishReason, Request
from jaxserve.engine.sequence import Sequence, SequenceState
from jaxserve.errors import ContextLengthExceeded, InvalidRequest


@dataclass
class _Step:
    """The plan being built."""

    budget: int
    """Tokens that may still be planned."""
    rows: dict[Sequence, PlannedRow] = field(default_factory=dict)
    drafting: list[Sequence] = field(default_factory=list)
    """Sequences whose drafts are in flight; a token of the budget is left to each."""

    def computed_before(self, sequence: Sequence) -> int:
        """Positions of a sequence that earlier steps have computed: a row never reads what its own step writes."""
        row = self.rows.get(sequence)
        return sequence.computed if row is None else row.start


class Scheduler:
    """Sequences in, plans out.

    Args:
        config: the sizes: slots, context, pages, tokens of a step.

    Raises:
        ValueError: with these numbers some sequence could never run.
    """

    def __init__(self, config: EngineConfig) -> None:
        _check_sizes(config)
        self.max_model_len = config.max_model_len
        self.max_num_seqs = config.max_num_seqs
        self.preemptions = 0
        """Times a running sequence lost its pages."""
        self.prefix_query_tokens = 0
        """Prompt tokens looked up in the prefix cache."""
        self.prefix_hit_tokens = 0
        """Prompt tokens found there."""
        self._page_size = config.page_size
        """Prefill chunks start and end at multiples of it (the last one ends with the prompt): boundaries that don't
        depend on load keep results so."""
        self._token_budget = config.max_num_batched_tokens
        self._mixed_budget = config.max_num_mixed_tokens or self._token_budget
        self._room = Room.of(config)
        self._prefix_caching = config.prefix_caching
        self._pages = Paging(
            config.num_pages, config.page_size, config.page_windows, config.max_model_len, config.max_num_batched_tokens
        )
        self._groups = len(config.page_windows)
        self.images = None if config.images is None else ImagePool(config.images)
        """Where the embeddings of images are; None for a model of text."""
        self._whole_images = config.images is not None and config.images.whole
        self._slots = list(range(config.max_num_seqs))  # a heap: low slots first
        self._arrivals = itertools.count()
        self._waiting = Line()
        self._running: dict[Sequence, None] = {}  # by rank
        self._live: dict[str, list[Sequence]] = {}  # unfinished choices by request id
        self._calls = Calls(config.max_waiting)
        self._stuck: tuple[Sequence, int] | None = None  # head of the queue and the pages that were too few for it

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences with a slot."""
        return len(self._running)

    @property
    def has_work(self) -> bool:
        """Whether any sequence has not ended."""
        return bool(self._waiting or self._running)

    @property
    def free_pages(self) -> int:
        """Pages that no sequence holds, those of the prefix cache included."""
        return self._pages.available

    @property
    def cached_pages(self) -> int:
        """Pages that no sequence holds and the prefix cache keeps."""
        return self._pages.idle

    def add(self, request: Request) -> list[Sequence]:
        """Queue a request.

        Returns:
            Its `n` sequences, in order of their choice.

        Raises:
            Overloaded: `max_waiting` calls wait already (see `Calls.enter`).
            ContextLengthExceeded: the prompt leaves no room for a token within max_model_len.
            InvalidRequest: an empty prompt, no choice, or the id of a request that has not ended.
        """
        self._check_request(request)
        self._calls.enter(request, len(self._slots))
        sequences = [Sequence(request, choice, next(self._arrivals)) for choice in range(request.n)]
        self._waiting.join(sequences)
        self._live[request.id] = list(sequences)
        return sequences

    def plan(self, newcomers: int | None = None, propose: Propose = NO_DRAFTS) -> Plan | None:
        """What the next step computes; None when there is nothing to do, for want of work or until a commit.

        Steps before it may still be uncommitted; the engine keeps one in flight, any number is correct.

        Args:
            newcomers: waiting sequences that may come in with this step; None = as many as fit.
            propose: guesses how sequences go on.
        """
        step = _Step(self._token_budget)
        if self.images is not None:
            self.images.begin_step()
        self._plan_running(step)
        self._admit(step, len(self._waiting) if newcomers is None else newcomers)
        if not step.rows:
            return None
        self._plan_drafting(step)
        self._add_drafts(step, propose)
        rows = tuple(sorted(step.rows.values(), key=lambda row: row.sequence.slot))
        return Plan(rows) if self.images is None else Plan(rows, self.images.take_encodings())

    def commit(self, plan: Plan, results: Seq[RowResult]) -> list[Advance]:
        """Take over what a step returned; plans are committed in the order they were made.

        Args:
            plan: the step.
            results: one entry for each of its rows, with at most as many tokens as the row samples. What is missing
                is taken back, and so is what was launched behind it: those positions will be computed again.

        Returns:
            The sequences that advanced, with what was appended to their outputs. Rows of sequences that had ended
            before are dropped, and so are tokens behind the one that ends a sequence.

        Raises:
            ValueError: the entries don't fit the plan's rows.
        """
        if len(results) != len(plan.rows):
            raise ValueError(f"{len(plan.rows)} rows were planned, {len(results)} came back")
        advanced: list[Advance] = []
        for row, result in zip(plan.rows, results, strict=True):
            row.sequence.in_flight -= 1
            if row.sequence.state is not SequenceState.FINISHED and not row.void:
                advance = self._take(row, result.sampled)
                if advance is not None:
                    advanced.append(advance)
        return advanced

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a sequence, in whatever state it is; pages and slot are free at once. Nothing happens if it has ended.

        Rows in flight still write to its pages and slot, but they were launched before anything that may get them
        next, and the device keeps that order.
        """
        if sequence.state is SequenceState.FINISHED:
            return
        if sequence.state is SequenceState.RUNNING:
            self._vacate(sequence)
        else:
            self._waiting.leave(sequence)
        sequence.state = SequenceState.FINISHED
        sequence.finish_reason = reason
        siblings = self._live[sequence.request.id]
        siblings.remove(sequence)
        if not siblings:
            del self._live[sequence.request.id]
            self._calls.leave(sequence.request.call)

    def abort(self, request_id: str) -> list[Sequence]:
        """End every choice of a request that has not ended, with reason 'abort'.

        Returns:
            These sequences; none when the request is unknown or over.
        """
        sequences = list(self._live.get(request_id, ()))
        for sequence in sequences:
            self.finish(sequence, "abort")
        return sequences

    def restart(self) -> list[Sequence]:
        """Send everything that runs back to the queue, with its committed tokens: what is in flight is never committed.

        Returns:
            These sequences, by rank.
        """
        running = list(self._running)
        for sequence in reversed(running):
            self._preempt(sequence)
        for sequence in self._waiting:
            sequence.in_flight, sequence.sampled, sequence.drafted = 0, len(sequence.output), 0
        self._stuck = None
        if self.images is not None:
            self.images.forget()
        return running

    def check(self) -> None:
        """Verify that pages, slots and queues are conserved. O(pages), for idle moments and tests.

        Raises:
            RuntimeError: they are not; the message says what is wrong.
        """
        self._pages.check(self._running)
        if self.images is not None:
            self.images.check()
        slots = [*self._slots, *(sequence.slot for sequence in self._running)]
        if sorted(slots) != list(range(self.max_num_seqs)):
            raise RuntimeError("a slot is lost or taken twice")
        order = [*self._running, *self._waiting]
        kinds = [[one for one in order if one.request.priority is priority] for priority in (True, False)]
        lines = [list(self._running), list(self._waiting), *kinds]
        if any(line != sorted(line, key=attrgetter("rank")) for line in lines):
            raise RuntimeError("a sequence runs or waits out of turn")
        if any(s.pages or s.computed or s.slot >= 0 for s in self._waiting):
            raise RuntimeError("a waiting sequence holds pages or a slot")
        live = [sequence for choices in self._live.values() for sequence in choices]
        if set(live) != {*self._running, *self._waiting} or len(live) != len(order):
            raise RuntimeError("the unfinished sequences are not those that run or wait")
        self._calls.check(choices[0].request for choices in self._live.values())

    # Planning

    def _plan_running(self, step: _Step) -> None:
        """A row for each running sequence, by rank: one token for those that decode, the next chunk of a prompt
        (or of prompt and output, after a preemption) from what these leave of the budget."""
        wanting = [
            (sequence, missing)
            for sequence in self._running
            if (missing := sequence.length - sequence.computed) > 1
            or (missing == 1 and (sequence.drafted or self._unfinished(sequence)))
        ]
        decoding = sum(missing == 1 for _, missing in wanting)
        if decoding:
            # A prompt under way always gets a chunk, so that a small budget holds nobody up.
            step.budget = min(step.budget, max(self._mixed_budget, decoding + self._page_size))
        for sequence, missing in wanting:
            if sequence.state is not SequenceState.RUNNING:
                continue  # lost its pages to one of higher rank in this loop
            if sequence.drafted:
                step.drafting.append(sequence)
                step.budget -= 1
                decoding -= 1
                continue
            count = 1
            if missing == 1:
                decoding -= 1
            else:
                count = self._chunk_length(sequence.computed, sequence.length, step.budget - decoding)
            count, images = self._with_images(sequence, sequence.computed, count)
            if count > 0 and self._make_room(sequence, sequence.computed + count):
                self._plan_row(step, sequence, count, images=images)

    def _admit(self, step: _Step, newcomers: int) -> None:
        """Give slots, pages and a first chunk to at most `newcomers` waiting sequences, strictly by rank.

        A prompt that is not computed at once leaves less than a chunk of the budget, so at most one is under way, and
        the tokens that each running sequence got in its first step are its own to the end: one while it decodes, a
        chunk while it prefills. Every running sequence thus can have a row in every step (unless what is in flight
        ends it); the budget limits who comes in, and nobody in is ever held up.
        """
        while self._waiting and self._slots and newcomers > 0:
            newcomers -= 1
            sequence = self._waiting.head
            if sequence.in_flight or step.budget < min(sequence.length, self._page_size):
                return
            if self._stuck is not None and self._stuck[0] is sequence and self._spare_pages() <= self._stuck[1]:
                return
            found = self._find_prefix(step, sequence)
            if found is None:
                return
            prefix, donor = found
            start = prefix.blocks * self._page_size
            wanted = self._chunk_length(start, sequence.length, step.budget)
            count, images = self._with_images(sequence, start, wanted)
            if not count:
                return
            if not self._pages.start(sequence, prefix, start + count, self._reserved_pages()):
                self._stuck = sequence, self._spare_pages()
                return
            sequence.computed = start
            self._seat(sequence, donor)
            self._plan_row(step, sequence, count, fresh=True, images=images)
            if count < wanted:
                return  # the rest of the step's budget is not for others: this prompt goes on with the next

    def _with_images(self, sequence: Sequence, start: int, count: int) -> tuple[int, tuple[PlannedImage, ...]]:
        """The images of a chunk at `start`, and its length: up to the last canonical boundary before an image that
        this step has no room for, or no time to encode, or that it would not hold whole where that matters."""
        images: list[PlannedImage] = []
        key = sequence.request.cache_key
        for placed in sequence.request.images:
            if placed.end <= start or placed.start >= start + count:
                continue
            cut = self._whole_images and placed.end > start + count
            rows = None if cut or self.images is None else self.images.place(key, placed.image)
            if rows is None:
                end = placed.start // self._page_size * self._page_size
                if self._whole_images and any(image.start < end < image.start + len(image.rows) for image in images):
                    end = placed.start  # the boundary lies within an image before
                return max(0, end - start), tuple(image for image in images if image.start < end)
            images.append(PlannedImage(placed.start, rows))
        return count, tuple(images)

    def _plan_row(
        self,
        step: _Step,
        sequence: Sequence,
        count: int,
        *,
        fresh: bool = False,
        images: tuple[PlannedImage, ...] = (),
    ) -> None:
        start, end = sequence.computed, sequence.computed + count
        samples = int(end == sequence.length and sequence.request.max_tokens > 0)
        step.rows[sequence] = PlannedRow(
            sequence=sequence,
            start=start,
            tokens=sequence.token_ids(start, end),
            pages=self._pages.table(sequence, start, end),
            samples=samples,
            fresh=fresh,
            position=sequence.sampled,
            branch=sequence.branch,
            images=images,
        )
        step.budget -= count
        sequence.computed = end
        sequence.sampled += samples
        sequence.in_flight += 1

    def _plan_drafting(self, step: _Step) -> None:
        """A row, too, for sequences whose drafts are in flight: void unless all of these are right.

        The step is made for others anyway. Nobody's pages are taken for it.
        """
        for sequence in step.drafting:
            going_on = sequence.state is SequenceState.RUNNING and self._unfinished(sequence)
            if going_on and self._grow(sequence, sequence.computed + 1):
                step.budget += 1
                self._plan_row(step, sequence, 1)

    def _add_drafts(self, step: _Step, propose: Propose) -> None:
        """Lengthen rows that sample by drafts, each by its share of the room there is."""
        proposals = {}
        for sequence, row in step.rows.items():
            if row.samples and (most := self._limit(sequence.request) - sequence.sampled) > 0:
                proposal = propose(sequence, min(most, MAX_DRAFTS))
                if proposal is not None:
                    proposals[sequence] = proposal
        if not proposals:
            return
        tokens, samples = (sum(getattr(row, name) for row in step.rows.values()) for name in ("count", "samples"))
        alone = len(proposals) == samples == len(step.rows)
        wanted = sum(proposal.wanted for proposal in proposals.values()) if alone else 0
        room = self._room.beside(tokens, samples, wanted)
        for place, (sequence, proposal) in enumerate(proposals.items()):
            drafts = proposal.tokens[: room // (len(proposals) - place)]
            if drafts and self._grow(sequence, sequence.computed + len(drafts)):
                room -= len(drafts)
                self._add_to_row(step, sequence, drafts, proposal.origin)

    def _add_to_row(self, step: _Step, sequence: Sequence, drafts: tuple[int, ...], origin: DraftOrigin) -> None:
        row, count = step.rows[sequence], len(drafts)
        sequence.computed += count
        sequence.sampled += count
        sequence.drafted += count
        step.rows[sequence] = replace(
            row,
            tokens=(*row.tokens, *drafts),
            pages=self._pages.table(sequence, row.start, sequence.computed),
            samples=row.samples + count,
            origin=origin,
        )

    def _grow(self, sequence: Sequence, end: int) -> bool:
        """Get pages for positions up to `end` if there are some that nobody will need soon."""
        if not self._pages.has_room(sequence, end):
            if self._pages.missing(sequence, end) > self._spare_pages():
                return False
            self._pages.grow(sequence, end)
        return True

    def _chunk_length(self, start: int, length: int, budget: int) -> int:
        """Tokens of the chunk at `start`: all up to `length`, or up to the last canonical boundary in the budget."""
        if length - start <= budget:
            return length - start
        return (start + budget) // self._page_size * self._page_size - start

    def _unfinished(self, sequence: Sequence) -> bool:
        """Whether more is wanted than what is launched already; false if what is in flight surely ends it."""
        return sequence.sampled < self._limit(sequence.request) or sequence.request.max_tokens == 0

    def _limit(self, request: Request) -> int:
        return min(request.max_tokens, self.max_model_len - len(request.prompt))

    # Pages and slots

    def _make_room(self, sequence: Sequence, end: int) -> bool:
        """Make sure that positions up to `end` have pages, at the cost of sequences of lower rank, or of this one.

        Those are not in the plan yet when a sequence is planned, so no planned row loses its pages.
        A sequence that gets pages of its own back when what it has in flight is committed waits for them first. Once
        all is committed there are none, so it takes others' then, and alone it fits. Nobody comes in meanwhile: the
        pages it lacks are among those that newcomers must leave.
        """
        if self._pages.has_room(sequence, end):
            return True
        missing = self._pages.missing(sequence, end)
        while missing > self._pages.available:
            if self._pages.returning(sequence):
                return False
            last = next(reversed(self._running))
            self._preempt(last)
            if last is sequence:
                return False
        self._pages.grow(sequence, end)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Take pages and slot; prompt and committed output are computed again once it is the sequence's turn."""
        self._vacate(sequence)
        sequence.state = SequenceState.WAITING
        sequence.preemptions += 1
        self._waiting.rejoin(sequence)
        self.preemptions += 1

    def _vacate(self, sequence: Sequence) -> None:
        del self._running[sequence]
        self._pages.vacate(sequence)
        sequence.computed = 0
        heapq.heappush(self._slots, sequence.slot)
        sequence.slot = -1

    def _reserved_pages(self) -> int:
        """Pages that newcomers must leave: every running sequence may need its next ones soon, prompts under way need
        some for all their chunks, and admitting what must be preempted a moment later wastes its prefill."""
        return len(self._running) * self._groups + sum(map(self._pages.outstanding, self._running))

    def _spare_pages(self) -> int:
        """Pages for newcomers."""
        return self._pages.available - self._reserved_pages()

    def _seat(self, sequence: Sequence, donor: Sequence | None) -> None:
        """Move the head of the queue, which has its pages, to a slot."""
        sequence.slot = heapq.heappop(self._slots)
        sequence.state = SequenceState.RUNNING
        self._waiting.come_in(sequence)
        self._running[sequence] = None
        if sequence.request.priority:
            self._running = dict.fromkeys(sorted(self._running, key=attrgetter("rank")))
        self._calls.begin(sequence.request.call)
        if sequence.preemptions == 0:
            self._count_cached(sequence, donor)

    def _count_cached(self, sequence: Sequence, donor: Sequence | None) -> None:
        if donor is not None:
            sequence.cached = donor.cached  # one prompt, computed once
        elif self._prefix_caching:
            sequence.cached = sequence.computed
            self.prefix_query_tokens += len(sequence.request.prompt)
            self.prefix_hit_tokens += sequence.cached

    # Prefixes

    def _find_prefix(self, step: _Step, sequence: Sequence) -> tuple[CachedPrefix, Sequence | None] | None:
        """The pages that hold the beginning of a sequence already, and the sibling they are from (None: the prefix
        cache). None while a sibling is computing them.

        The last token is always computed (its logits are wanted), and with it everything after the canonical
        boundary before it.
        """
        forked = self._fork(step, sequence)
        if forked is None:
            return None
        prefix, donor = forked
        if self._prefix_caching:
            limit, tokens = self._reusable(sequence, sequence.length), sequence.content_ids(0, sequence.length)
            cached = self._pages.lookup(sequence.request.cache_key, tokens, limit, self._page_size)
            if cached.blocks >= prefix.blocks:
                return cached, None
        return prefix, donor

    def _fork(self, step: _Step, sequence: Sequence) -> tuple[CachedPrefix, Sequence | None] | None:
        """The prompt's pages from a sibling that has computed and kept them; None while one is computing them."""
        shared = self._reusable(sequence, len(sequence.request.prompt))
        for sibling in self._live[sequence.request.id]:
            if sibling.state is SequenceState.RUNNING and shared > 0:
                if step.computed_before(sibling) < shared:
                    return None
                prefix = self._pages.shared(sibling, shared)
                if prefix is not None:
                    return prefix, sibling
        return self._pages.nothing(), None

    def _reusable(self, sequence: Sequence, length: int) -> int:
        """Leading tokens, of `length`, that need not be computed if they are found somewhere."""
        limit = length - 1
        first_score = sequence.request.prompt_logprobs_from
        if first_score is not None and sequence.choice == 0 and not sequence.output:
            # The score of a token comes out of the position before it, so that one must be computed here.
            limit = min(limit, max(0, first_score - 1))
        return limit // self._page_size * self._page_size

    # Committing

    def _take(self, row: PlannedRow, sampled: tuple[SampledToken, ...]) -> Advance | None:
        """Append what a row of an unfinished sequence returned, keep or give up its pages, and see whether it ends.

        Returns:
            What its reader has to hear of; None if there is nothing.
        """
        sequence, missing = row.sequence, row.samples - len(sampled)
        if missing < 0 or (row.samples and not sampled):
            raise ValueError(
                f"a row of request {sequence.request.id} samples {row.samples} tokens, {len(sampled)} came back"
            )
        failed = next((index for index, token in enumerate(sampled) if token.failed), None)
        if failed is not None:
            sampled = sampled[:failed]
        if missing:  # what was launched behind counts on all drafts: it is void
            sequence.sampled, sequence.drafted = row.position + row.samples - missing, 0
            sequence.branch += 1
        else:
            sequence.drafted -= len(row.drafts)
        taken, reason = self._append(sequence, sampled)
        # A sequence that was preempted since has given its pages away; it is not admitted again before this commit.
        if sequence.state is SequenceState.RUNNING:
            end = row.start + row.count - missing
            if missing:
                sequence.computed = end
            self._keep_pages(sequence, min(end, len(sequence.request.prompt) + len(sequence.output)))
        if not row.samples:
            return self._end_scoring(row)
        if failed is not None:
            reason = reason or "error"
        if reason is not None:
            self.finish(sequence, reason)
        return Advance(
            sequence,
            taken,
            failed=reason == "error",
            drafted=len(row.drafts),
            accepted=min(row.samples - missing - 1, len(taken)),
            origin=row.origin,
        )

    def _keep_pages(self, sequence: Sequence, end: int) -> None:
        """Offer what is computed to the prefix cache, and give up what no later query reads."""
        if self._prefix_caching:
            self._pages.register(sequence, end)
        self._pages.give_up(sequence, end)

    def _end_scoring(self, row: PlannedRow) -> Advance | None:
        """End a sequence that wanted nothing but scores of its prompt, once that is computed."""
        request = row.sequence.request
        if request.max_tokens > 0 or row.start + row.count < len(request.prompt):
            return None
        self.finish(row.sequence, "length")
        return Advance(row.sequence)

    def _append(
        self, sequence: Sequence, sampled: tuple[SampledToken, ...]
    ) -> tuple[tuple[SampledToken, ...], FinishReason | None]:
        """Append tokens up to one that ends the sequence; returns those appended, and why it ends."""
        for index, token in enumerate(sampled, 1):
            sequence.output.append(token.token)
            if token.token in sequence.request.stop_token_ids:
                return sampled[:index], "stop"
            if len(sequence.output) >= self._limit(sequence.request):
                return sampled[:index], "length"
        return sampled, None

    def _check_request(self, request: Request) -> None:
        if not request.prompt:
            raise InvalidRequest("prompt", "the prompt holds no token")
        if request.n < 1:
            raise InvalidRequest("n", "at least one choice must be asked for")
        if len(request.prompt) + (request.max_tokens > 0) > self.max_model_len:
            raise ContextLengthExceeded(
                "prompt", f"a prompt of {len(request.prompt)} tokens does not fit the context of {self.max_model_len}"
            )
        if request.id in self._live:
            raise InvalidRequest("id", f"request {request.id} is running already")
        if self.images is None and request.images:
            raise InvalidRequest("images", "this model knows text only")
        for placed in request.images:
            if self.images is not None and not self.images.admits(placed.image):
                raise InvalidRequest(
                    "images", f"an image of {placed.image.tokens} tokens is larger than any that is read"
                )


def _check_sizes(config: EngineConfig) -> None:
    if min(config.max_num_seqs, config.max_model_len, config.page_size) < 1:
        raise ValueError("max_num_seqs, max_model_len and page_size must be at least 1")
    if config.max_num_batched_tokens < config.page_size:
        raise ValueError(
            f"a step of {config.max_num_batched_tokens} tokens is smaller than the smallest prefill chunk, a page of "
            f"{config.page_size}"
        )
