"""The scheduler under random traffic, against a simulated device.

The device's "model" is a hash: what it stores of a position is the page group and a digest of the isolation key and all
tokens up to there; the next token is a digest of the last entry. Plans are packed as for a real device, and for every
position computed every key that its window lets it see is read back through the ring of its page group and compared
with what must be there: one wrong page, offset, token or stale entry anywhere is seen at once, and every sequence must
yield exactly what it yields alone. Of drafts, right and wrong ones, it keeps what a device keeps: the samples up to the
first that differs from its draft, and nothing of a row that counted on a wrong one.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import lru_cache

from engine_configs import engine_config
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxserve.config import table_columns
from jaxserve.engine.batch import Layout
from jaxserve.engine.drafting import Proposal
from jaxserve.engine.encode import Encoder
from jaxserve.engine.plan import Plan, PlannedRow, RowResult, SampledToken
from jaxserve.engine.requests import FinishReason, Request
from jaxserve.engine.scheduler import Scheduler
from jaxserve.engine.sequence import Sequence, SequenceState
from jaxserve.errors import Overloaded
from jaxserve.sampling.params import SamplingParams

NEUTRAL = SamplingParams()
STOP, VOCABULARY = 0, 12


def digest_of(before: int, token: int) -> int:
    return hash((before, token, 0x5EED))


def next_token(last: int, choice: int, position: int) -> int:
    return hash((last, choice, position)) % VOCABULARY


def salt(key: str) -> int:
    return 1 + len(key)


@lru_cache(maxsize=100_000)
def alone(
    prompt: tuple[int, ...], key: str, choice: int, max_tokens: int, stops: tuple[int, ...], context: int
) -> tuple[tuple[int, ...], FinishReason]:
    """What a sequence yields with the device to itself, without paging."""
    digest = salt(key)
    for token in prompt:
        digest = digest_of(digest, token)
    output: list[int] = []
    while len(output) < min(max_tokens, context - len(prompt)):
        token = next_token(digest, choice, len(output))
        output.append(token)
        if token in stops:
            return tuple(output), "stop"
        digest = digest_of(digest, token)
    return tuple(output), "length"


class Device:
    """Executes plans in the order of their launch. A row never reads what another row of its step writes."""

    def __init__(self, page_size: int, windows: tuple[int | None, ...], columns: tuple[int, ...]) -> None:
        self.page_size = page_size
        self.windows = windows
        self.columns = columns
        self.entries: dict[tuple[int, int], tuple[int, int]] = {}
        self.last: dict[int, int] = {}
        self.position: dict[int, int] = {}
        self.digests: dict[Sequence, list[int]] = {}

    def launch(self, plan: Plan) -> list[RowResult]:
        writes: dict[tuple[int, int], tuple[int, int]] = {}
        layout = Layout(plan.num_tokens, len(plan.rows), plan.num_samples, self.columns)
        tables = layout.split(Encoder((layout,)).launch(plan, draw=True).batch).page_tables
        results = [self._row(row, [t[i].tolist() for t in tables], writes) for i, row in enumerate(plan.rows)]
        self.entries.update(writes)
        return results

    def _row(
        self, row: PlannedRow, rings: list[list[int]], writes: dict[tuple[int, int], tuple[int, int]]
    ) -> RowResult:
        sequence, end = row.sequence, row.start + row.count
        if row.fresh:
            self.last.pop(sequence.slot, None)
            self.position.pop(sequence.slot, None)
        digests = self._extend(row)
        for group, (ring, window) in enumerate(zip(rings, self.windows, strict=True)):
            # The first position computed sees furthest back; what this row computes itself is checked as it is written.
            for position in range(0 if window is None else max(0, row.start - window + 1), row.start):
                found = self.entries.get(self._place(ring, position))
                assert found == (group, digests[position]), f"position {position} of group {group} is not in its page"
            for position in range(row.start, end):
                place = self._place(ring, position)
                assert place not in writes, "two rows, groups or positions of one step write one place"
                assert place[0] > 0, "written where padding goes"
                writes[place] = group, digests[position]
            for position in range(row.start, end):
                assert writes[self._place(ring, position)] == (group, digests[position])
        if not row.samples or not self._goes_on(row):
            return RowResult()
        tokens: list[int] = []
        for index, draft in enumerate((*row.drafts, -1)):
            tokens.append(next_token(digests[end - row.samples + index], sequence.choice, row.position + index))
            if tokens[-1] != draft:
                break
        self.last[sequence.slot], self.position[sequence.slot] = tokens[-1], row.position + len(tokens)
        return RowResult(tuple(map(SampledToken, tokens)))

    def _goes_on(self, row: PlannedRow) -> bool:
        return self.position.get(row.sequence.slot, row.position) == row.position

    def _extend(self, row: PlannedRow) -> list[int]:
        """Digests of a sequence's positions up to the end of this row; those before it may be from the cache."""
        sequence = row.sequence
        digests = self.digests.setdefault(sequence, [])
        if not self._goes_on(row):
            return [*digests[: row.start], *[-1] * (row.start + row.count - len(digests))]
        del digests[row.start :]  # of wrong drafts
        known = sequence.tokens
        for position in range(len(digests), row.start + row.count):
            token = known[position] if position < row.start else row.tokens[position - row.start]
            before = digests[-1] if digests else salt(sequence.request.cache_key)
            digests.append(digest_of(before, self.last[sequence.slot] if token == -1 else token))
        return digests

    def _place(self, ring: list[int], position: int) -> tuple[int, int]:
        return ring[position // self.page_size % len(ring)], position % self.page_size


@dataclass(frozen=True)
class Setting:
    """Sizes of one trace."""

    slots: int
    context: int
    page_size: int
    spare_pages: int
    """Pages beyond those that one sequence of the full context needs."""
    budget: int
    depth: int
    """Steps that may be uncommitted when the next one is planned."""
    caching: bool
    windows: tuple[int | None, ...] = (None,)
    """Of each page group."""
    max_waiting: int = 1024
    wrong: int | None = None
    """None = no drafts; else one in so many is wrong."""
    mixed: int | None = None
    """Token budget of a step in which sequences decode."""

    def scheduler(self) -> Scheduler:
        return Scheduler(
            engine_config(
                max_num_seqs=self.slots,
                max_model_len=self.context,
                num_pages=self.num_pages,
                page_size=self.page_size,
                max_num_batched_tokens=self.token_budget,
                max_num_mixed_tokens=self.mixed,
                page_windows=self.windows,
                prefix_caching=self.caching,
                max_waiting=self.max_waiting,
            )
        )

    @property
    def token_budget(self) -> int:
        return max(self.budget, self.page_size)

    @property
    def columns(self) -> tuple[int, ...]:
        return table_columns(self.windows, self.context, self.page_size, self.token_budget)

    @property
    def num_pages(self) -> int:
        return 1 + sum(self.columns) + self.spare_pages


@dataclass
class Traffic:
    """An engine loop around scheduler and device that checks everything that must hold at every moment."""

    setting: Setting
    sequences: list[Sequence] = field(default_factory=list)
    steps: int = 0
    forks: int = 0
    """Fresh rows that began with a sibling's pages."""
    waits: int = 0
    """Rows that were left out until a commit gave their sequence pages back."""
    given_up: int = 0
    """Pages that were not held to the end."""
    accepted: int = 0
    """Drafts that were right."""
    voids: int = 0
    """Rows that counted on drafts that were wrong."""
    overtaken: int = 0
    """Times that one came in before an earlier arrival of lower rank."""

    def __post_init__(self) -> None:
        self.scheduler = self.setting.scheduler()
        self.device = Device(self.setting.page_size, self.setting.windows, self.setting.columns)
        self.in_flight: deque[tuple[Plan, list[RowResult]]] = deque()
        self.computed_to: dict[Sequence, int] = {}
        self.committed_to: dict[Sequence, int] = {}
        self.reached: dict[Sequence, int] = {}
        self.random = random.Random(self.setting.slots)
        self.spells: dict[Sequence, int] = {}

    def add(self, request: Request) -> None:
        waiting = {s.request.id for s in self.sequences} - {
            s.request.id for s in self.sequences if s in self.spells or s.finish_reason is not None
        }
        try:
            self.sequences += self.scheduler.add(request)
        except Overloaded:
            assert len(waiting) >= self.setting.max_waiting
        self.scheduler.check()

    def step(self) -> None:
        """Plan and launch, then commit what is too deep; the engine's loop."""
        self.steps += 1
        plan = self.scheduler.plan(None, self.propose)
        self.scheduler.check()
        self.check_sharing()
        self.check_bounds()
        if plan is None:
            assert self.in_flight or not self.scheduler.has_work, "work, but nothing planned and nothing awaited"
        else:
            self.check_plan(plan)
            self.in_flight.append((plan, self.device.launch(plan)))
        if self.in_flight and (plan is None or len(self.in_flight) > self.setting.depth):
            self.commit()

    def propose(self, sequence: Sequence, most: int) -> Proposal | None:
        """What comes next, some tokens of it changed."""
        if self.setting.wrong is None or self.random.random() < 0.2:
            return None
        output, _ = yields(sequence, self.setting)
        first = sequence.sampled - 1
        tokens = list(output[first : first + min(most, self.random.randint(1, 6))])
        for place in range(len(tokens)):
            if self.random.randrange(self.setting.wrong) == 0:
                tokens[place] = (tokens[place] + 1) % VOCABULARY
        return Proposal(tuple(tokens), self.random.randint(0, len(tokens)), "prediction") if tokens else None

    def commit(self) -> None:
        plan, results = self.in_flight.popleft()
        before = {row.sequence: (len(row.sequence.output), row.sequence.finish_reason) for row in plan.rows}
        advanced = self.scheduler.commit(plan, results)
        by_sequence = {row.sequence: result for row, result in zip(plan.rows, results, strict=True)}
        for advance in advanced:
            count, reason = before[advance.sequence]
            assert reason is None, "a row of a sequence that had ended is dropped"
            sampled = by_sequence[advance.sequence].sampled
            assert advance.tokens == sampled[: len(advance.tokens)]
            assert len(advance.tokens) == len(sampled) or advance.sequence.finish_reason is not None
            self.accepted += advance.accepted
            assert len(advance.sequence.output) == count + len(advance.tokens)
        heard_of = {advance.sequence for advance in advanced}
        for row in plan.rows:
            assert row.sequence in heard_of or len(row.sequence.output) == before[row.sequence][0]
            self.voids += row.void
            if not row.samples or by_sequence[row.sequence].sampled:
                end = row.start + row.count - row.samples + len(by_sequence[row.sequence].sampled)
                self.committed_to[row.sequence] = end
                if end < row.start + row.count:
                    self.computed_to[row.sequence] = end
        self.scheduler.check()
        self.check_bounds()

    def abort(self, pick: int) -> None:
        if self.sequences:
            request_id = self.sequences[pick % len(self.sequences)].request.id
            expected = [s for s in self.sequences if s.request.id == request_id and s.finish_reason is None]
            assert self.scheduler.abort(request_id) == expected
            assert all(s.finish_reason == "abort" for s in expected)
            self.scheduler.check()

    def finish(self, pick: int) -> None:
        """As for a stop text: from outside, with a row perhaps in flight."""
        running = [s for s in self.sequences if s.output and s.finish_reason is None]
        if running:
            self.scheduler.finish(running[pick % len(running)], "error")
            self.scheduler.check()

    def drain(self) -> None:
        bound = self.steps + 50 + 4 * sum(len(s.request.prompt) + s.request.max_tokens for s in self.sequences) * 3
        while self.scheduler.has_work or self.in_flight:
            self.step()
            assert self.steps < bound, "some sequence does not end"

    def check_plan(self, plan: Plan) -> None:
        setting = self.setting
        held_up = set(self.running()) - {row.sequence for row in plan.rows}
        for sequence in held_up - {sequence for sequence in held_up if certain_to_end(sequence, setting)}:
            self.waits += 1
            assert sequence.in_flight, "a running sequence has no row"
            assert any(setting.windows) or sequence.drafted, "a running sequence has no row"
        assert 0 < plan.num_tokens <= setting.token_budget
        planned = plan.num_tokens - sum(len(row.drafts) for row in plan.rows)
        if setting.mixed and any(self.decodes(row) for row in plan.rows):
            assert planned <= max(setting.mixed, setting.slots + setting.page_size), "prompts hold answers up"
        slots = [row.sequence.slot for row in plan.rows]
        assert slots == sorted(set(slots))
        assert slots[0] >= 0
        assert slots[-1] < setting.slots
        self.check_turn([row.sequence for row in plan.rows if row.fresh and row.sequence not in self.spells])
        for row in plan.rows:
            self.check_row(row)

    def decodes(self, row: PlannedRow) -> bool:
        """Whether it computes the one token that its sequence lacks, and did not come in with this step."""
        return row.start >= len(row.sequence.request.prompt) and row.count == 1 + len(row.drafts) and not row.fresh

    def check_turn(self, newcomers: list[Sequence]) -> None:
        """Nobody comes in before one of a higher rank that waits."""
        waiting = [s for s in self.sequences if s.state is SequenceState.WAITING]
        for sequence in newcomers:
            for other in waiting:
                same = other.request.priority is sequence.request.priority
                assert not same or other.rank > sequence.rank, "one of a later turn was admitted first"
                if same and other.request.client == sequence.request.client:
                    assert other.arrival > sequence.arrival, "a later arrival was admitted first"
                assert same or sequence.request.priority, "admitted before a priority request"
            self.overtaken += sum(other.arrival < sequence.arrival for other in waiting)

    def check_row(self, row: PlannedRow) -> None:
        setting, sequence, request = self.setting, row.sequence, row.sequence.request
        end = row.start + row.count
        drafted = len(row.drafts)
        assert row.count > drafted
        pages = [page for _, run in row.pages for page in run]
        assert 0 not in pages
        assert len(set(pages)) == len(pages)
        for (first, run), held, columns in zip(row.pages, sequence.pages.runs, setting.columns, strict=True):
            assert run == held.part(first, first + len(run)).pages
            assert len(run) <= columns
        assert row.fresh == (self.spells.get(sequence) != sequence.preemptions), "fresh once in each spell in a slot"
        if row.fresh:
            assert sequence.in_flight == 1, "admitted again before its last sample was committed"
            self.forks += sequence.choice > 0 and row.start > sequence.cached
            self.committed_to[sequence] = row.start
            if sequence.choice == 0 and not sequence.output and request.prompt_logprobs_from is not None:
                assert row.start <= max(0, request.prompt_logprobs_from - 1), "a position to be scored was not computed"
        else:
            assert row.start == self.computed_to[sequence], "each position is computed once in each spell"
        self.spells[sequence] = sequence.preemptions
        self.computed_to[sequence] = end
        self.reached[sequence] = end if row.fresh else max(end, self.reached[sequence])
        known = sequence.tokens
        for position, token in enumerate(row.tokens[: row.count - drafted], row.start):
            last = position == end - drafted - 1
            assert token == known[position] if position < len(known) else (token == -1 and last)
        length_before = sequence.length - row.samples
        assert end - drafted <= length_before
        assert (row.samples > 0) == (end - drafted == length_before and request.max_tokens > 0)
        assert row.start % setting.page_size == 0 or row.count == drafted + 1
        assert (end - drafted) % setting.page_size == 0 or end - drafted == length_before
        assert row.position == sequence.sampled - row.samples
        assert sequence.sampled <= min(request.max_tokens, setting.context - len(request.prompt))
        shared = {page for other in self.running() if other is not sequence for page in held_pages(other)}
        for first, run in row.pages:
            written = run[row.start // setting.page_size - first :]
            assert not shared & set(written), "writes to a page that another sequence holds"

    def running(self) -> list[Sequence]:
        return [s for s in self.sequences if s.state is SequenceState.RUNNING]

    def check_sharing(self) -> None:
        """A page held twice holds the same positions of equal tokens in one group under one key, full and known."""
        holders: dict[int, tuple[int, int, str, tuple[int, ...]]] = {}
        size = self.setting.page_size
        for sequence in self.running():
            tokens = tuple(sequence.tokens)
            for group, run in enumerate(sequence.pages.runs):
                for index, page in enumerate(run.pages, run.first):
                    content = group, index, sequence.request.cache_key, tokens[: (index + 1) * size]
                    assert holders.setdefault(page, content) == content
                    if holders[page] is not content:
                        assert len(content[3]) == (index + 1) * size

    def check_bounds(self) -> None:
        """A group with a window holds what the committed and the planned steps need, and not a page more."""
        size = self.setting.page_size
        for sequence in self.running():
            to, end = self.committed_to.get(sequence, 0), max(sequence.computed, self.reached.get(sequence, 0))
            if sequence not in self.spells or self.spells[sequence] != sequence.preemptions:
                continue  # planned in this very step
            for run, window in zip(sequence.pages.runs, self.setting.windows, strict=True):
                if window is not None:
                    self.given_up += run.first > 0
                    assert run.first == max(0, to - window + 1) // size
                    assert run.end == -(-end // size)
                    assert len(run.pages) <= -(-(window - 1 + end - to) // size) + 1

    def check_end(self) -> None:
        assert self.scheduler.free_pages == self.setting.num_pages - 1
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0
        assert self.setting.caching or self.scheduler.cached_pages == 0
        for sequence in self.sequences:
            assert sequence.in_flight == 0
            output, reason = yields(sequence, self.setting)
            if sequence.finish_reason in ("abort", "error"):
                assert tuple(sequence.output) == output[: len(sequence.output)]
            else:
                assert (tuple(sequence.output), sequence.finish_reason) == (output, reason)


def yields(sequence: Sequence, setting: Setting) -> tuple[tuple[int, ...], FinishReason]:
    """What a sequence yields alone."""
    request = sequence.request
    return alone(
        request.prompt,
        request.cache_key,
        sequence.choice,
        request.max_tokens,
        request.stop_token_ids,
        setting.context,
    )


def held_pages(sequence: Sequence) -> list[int]:
    return [page for run in sequence.pages.runs for page in run.pages]


def certain_to_end(sequence: Sequence, setting: Setting) -> bool:
    """Whether what is in flight ends it, so that nothing need be planned."""
    request = sequence.request
    if request.max_tokens == 0:
        return sequence.computed == len(request.prompt)
    return sequence.sampled == min(request.max_tokens, setting.context - len(request.prompt))


WINDOWS = st.sampled_from([(None,), (None, 3), (None, 5, 5), (1,), (4,), (2, 7), (None, None, 1, 9), (None, 40)])
SETTINGS = st.builds(
    Setting,
    slots=st.integers(1, 5),
    context=st.integers(4, 30),
    page_size=st.integers(1, 4),
    spare_pages=st.integers(0, 6),
    budget=st.integers(2, 24),
    depth=st.integers(0, 2),
    caching=st.sampled_from([True, True, False]),
    windows=WINDOWS,
    max_waiting=st.sampled_from([1024, 1024, 1024, 2]),
    wrong=st.sampled_from([None, 1, 2, 4, 1000]),
    mixed=st.sampled_from([None, None, 1, 6]),
)


def make_request(
    name: int, setting: Setting, family: int, length: int, tail: int, max_tokens: int, n: int, options: int
) -> Request:
    """A prompt of one of few families, so that many share a beginning; `options` is a bag of random bits."""
    score_only = options % 16 == 0
    longest = setting.context if score_only else setting.context - 1
    prompt = [(family * 3 + i // 2) % VOCABULARY for i in range(length)] + [tail] * (tail % 3)
    prompt = prompt[:longest]
    return Request(
        id=f"r{name}",
        prompt=tuple(prompt),
        sampling=NEUTRAL,
        max_tokens=0 if score_only else max_tokens,
        n=n,
        stop_token_ids=(STOP,) if options & 16 else (),
        prompt_logprobs_from=options // 32 % (len(prompt) + 1) if options & 1024 or score_only else None,
        cache_key="" if options & 2048 else "key",
        cache_max_len=options // 4096 % 9 if options & 65536 else None,
        priority=options >> 17 == 3,
        client="ab"[options // 8192 % 2],
    )


@st.composite
def traces(draw: st.DrawFn) -> tuple[Setting, list[tuple[str, tuple[int, ...]]]]:
    arrival = st.tuples(
        st.just("add"),
        st.tuples(
            st.integers(0, 1),
            st.integers(1, 28),
            st.integers(0, 5),
            st.integers(1, 20),
            st.sampled_from([1, 1, 1, 2, 3]),
            st.integers(0, 2**19 - 1),
        ),
    )
    steps = st.tuples(st.just("step"), st.tuples(st.integers(1, 6)))
    ends = st.tuples(st.sampled_from(["abort", "finish"]), st.tuples(st.integers(0, 20)))
    return draw(SETTINGS), draw(st.lists(st.one_of(arrival, arrival, steps, steps, ends), max_size=24))


def play(setting: Setting, trace: list[tuple[str, tuple[int, ...]]]) -> Traffic:
    traffic = Traffic(setting)
    for number, (operation, numbers) in enumerate(trace):
        if operation == "add":
            traffic.add(make_request(number, setting, *numbers))
        elif operation == "step":
            for _ in range(numbers[0]):
                traffic.step()
        elif operation == "abort":
            traffic.abort(numbers[0])
        else:
            traffic.finish(numbers[0])
    traffic.drain()
    traffic.check_end()
    return traffic


@settings(max_examples=300, deadline=None)
@given(traces())
def test_any_traffic_yields_what_each_sequence_yields_alone(
    trace: tuple[Setting, list[tuple[str, tuple[int, ...]]]],
) -> None:
    play(*trace)


def random_trace(seed: int) -> tuple[Setting, list[tuple[str, tuple[int, ...]]]]:
    """Heavier traffic than hypothesis likes to draw: many requests, few pages."""
    rng = random.Random(seed)
    setting = Setting(
        slots=rng.randint(2, 8),
        context=rng.randint(20, 60),
        page_size=rng.choice([1, 2, 4]),
        spare_pages=rng.randint(0, 16),
        budget=rng.randint(4, 24),
        depth=rng.randint(0, 2),
        caching=rng.random() < 0.8,
        windows=rng.choice([(None,), (None, 5), (None, 3, 3), (6,), (4, 11)]),
        wrong=rng.choice([None, 2, 5, 1000]),
        mixed=(None, 1, 9)[seed % 3],
    )
    trace: list[tuple[str, tuple[int, ...]]] = []
    for _ in range(40):
        kind = rng.random()
        if kind < 0.5:
            spec = (rng.randint(0, 1), rng.randint(1, 40), rng.randint(0, 5), rng.randint(1, 30), rng.choice([1, 1, 3]))
            trace.append(("add", (*spec, rng.randrange(2**19))))
        elif kind < 0.9:
            trace.append(("step", (rng.randint(1, 8),)))
        else:
            trace.append((rng.choice(["abort", "finish"]), (rng.randrange(40),)))
    return setting, trace


def test_heavy_traffic_meets_every_situation() -> None:
    """The same checks on fixed heavy traces, and proof that they contain what the properties are about."""
    seen: Counter[str] = Counter()
    for seed in range(80):
        traffic = play(*random_trace(seed))
        scheduler = traffic.scheduler
        seen["preemptions"] += scheduler.preemptions
        seen["hits"] += scheduler.prefix_hit_tokens
        seen["forks"] += traffic.forks
        seen["drafts"] += traffic.accepted
        seen["voids"] += traffic.voids
        seen["overtaken"] += traffic.overtaken
        if any(traffic.setting.windows):
            seen["given up"] += traffic.given_up
            seen["waits"] += traffic.waits
            seen["hits behind a window"] += scheduler.prefix_hit_tokens
            seen["preemptions beside a window"] += scheduler.preemptions
        seen.update(s.finish_reason for s in traffic.sequences if s.finish_reason is not None)
        assert scheduler.prefix_hit_tokens <= scheduler.prefix_query_tokens
    assert min(seen.values()) >= 20, seen
    assert len(seen) == 14, seen
