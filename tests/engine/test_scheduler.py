"""The scheduler, one behaviour at a time. Random traffic is in test_scheduler_properties.py."""

from __future__ import annotations

from typing import Any

import pytest
from engine_configs import engine_config

from jaxserve.engine.drafting import Proposal
from jaxserve.engine.plan import Advance, Plan, PlannedRow, RowResult, SampledToken
from jaxserve.engine.requests import Request
from jaxserve.engine.scheduler import Scheduler
from jaxserve.engine.sequence import Sequence, SequenceState
from jaxserve.errors import ContextLengthExceeded, InvalidRequest, Overloaded
from jaxserve.sampling.params import SamplingParams

STOP = 99


def make(**changes: Any) -> Scheduler:
    return Scheduler(engine_config(**changes))


def ask(name: str, prompt: int | tuple[int, ...], max_tokens: int = 8, **changes: Any) -> Request:
    ids = tuple(range(prompt)) if isinstance(prompt, int) else prompt
    changes.setdefault("stop_token_ids", (STOP,))
    return Request(id=name, prompt=ids, sampling=SamplingParams(), max_tokens=max_tokens, **changes)


def planned(scheduler: Scheduler) -> Plan:
    plan = scheduler.plan()
    assert plan is not None
    return plan


def spans(plan: Plan) -> list[tuple[str, int, int]]:
    return [(row.sequence.request.id, row.start, row.start + row.count) for row in plan.rows]


def row_of(plan: Plan, sequence: Sequence) -> PlannedRow:
    return next(row for row in plan.rows if row.sequence is sequence)


def commit(scheduler: Scheduler, plan: Plan, token: int = 7) -> list[Advance]:
    return scheduler.commit(plan, [result(*[token] * row.samples) for row in plan.rows])


def result(*tokens: int) -> RowResult:
    return RowResult(tuple(map(SampledToken, tokens)))


def advance(sequence: Sequence, *tokens: int) -> Advance:
    return Advance(sequence, tuple(map(SampledToken, tokens)))


def step(scheduler: Scheduler, token: int = 7) -> Plan:
    plan = planned(scheduler)
    commit(scheduler, plan, token)
    return plan


def held(sequence: Sequence, group: int = 0) -> list[int]:
    return sequence.pages.runs[group].pages.tolist()


def run_out(scheduler: Scheduler) -> None:
    while scheduler.has_work:
        step(scheduler)
    scheduler.check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pages": 16}, "needs 16 pages of 4, there are 15"),
        ({"max_num_batched_tokens": 3}, "smaller than the smallest prefill chunk"),
        ({"max_num_seqs": 0}, "at least 1"),
        ({"page_size": 0}, "at least 1"),
    ],
)
def test_sizes_with_which_a_sequence_could_never_run_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_what_can_never_run_is_refused() -> None:
    scheduler = make()
    with pytest.raises(ContextLengthExceeded, match="64 tokens does not fit"):
        scheduler.add(ask("long", 64))
    with pytest.raises(InvalidRequest, match="no token"):
        scheduler.add(ask("empty", ()))
    with pytest.raises(InvalidRequest, match="at least one choice"):
        scheduler.add(ask("none", 3, n=0))
    scheduler.add(ask("twice", 3))
    with pytest.raises(InvalidRequest, match="running already"):
        scheduler.add(ask("twice", 3))
    assert scheduler.num_waiting == 1
    assert len(scheduler.add(ask("scored", 64, max_tokens=0))) == 1


def waiting_room(scheduler: Scheduler, **changes: Any) -> int:
    """How many more requests are taken."""
    for count in range(100):
        try:
            scheduler.add(ask(f"more {count}", 3, **changes))
        except Overloaded:
            return count
    raise AssertionError("nothing is ever refused")


@pytest.mark.parametrize("max_waiting", [1, 2, 8])
@pytest.mark.parametrize("slots", [1, 4, 16])
@pytest.mark.parametrize("choices", [1, 3])
def test_free_slots_count_before_waiting_is_refused(max_waiting: int, slots: int, choices: int) -> None:
    assert waiting_room(make(max_waiting=max_waiting, max_num_seqs=slots), n=choices) == slots + max_waiting


def test_overload_counts_requests_that_have_never_run() -> None:
    scheduler = make(max_waiting=2, max_num_seqs=1)
    scheduler.add(ask("a", 3, n=3))
    step(scheduler)
    assert waiting_room(scheduler) == 2
    scheduler.abort("more 0")
    scheduler.add(ask("again", 3))
    with pytest.raises(Overloaded):
        scheduler.add(ask("one more", 3))


@pytest.mark.parametrize("size", [1, 5, 50])
def test_a_call_waits_as_one(size: int) -> None:
    """It is taken whole, whatever its size and however far its first requests have come."""
    scheduler = make(max_waiting=2, max_num_seqs=1)
    scheduler.add(ask("running", 3))
    step(scheduler)
    for name in ("first", "second"):
        for index in range(size):
            scheduler.add(ask(f"{name} {index}", 3, call=name))
    with pytest.raises(Overloaded):
        scheduler.add(ask("third 0", 3, call="third"))
    for index in range(size):
        scheduler.abort(f"first {index}")
    scheduler.add(ask("third 0", 3, call="third"))
    scheduler.check()


def test_no_work_no_plan() -> None:
    scheduler = make()
    assert scheduler.plan() is None
    assert not scheduler.has_work


def test_prompts_are_chunked_at_canonical_boundaries_and_share_the_budget() -> None:
    scheduler = make(max_num_batched_tokens=10)
    long, short = *scheduler.add(ask("long", 21)), *scheduler.add(ask("short", 2))
    assert spans(step(scheduler)) == [("long", 0, 8), ("short", 0, 2)], "8 is the last multiple of 4 within 10"
    plan = step(scheduler)
    assert spans(plan) == [("long", 8, 16), ("short", 2, 3)], "decode first, the prompt gets what is left"
    plan = step(scheduler)
    assert spans(plan) == [("long", 16, 21), ("short", 3, 4)]
    assert row_of(plan, long).samples
    assert row_of(plan, long).tokens == (16, 17, 18, 19, 20)
    assert (long.output, short.output) == ([7], [7, 7, 7])


def test_rows_are_ordered_by_slot_and_fresh_once() -> None:
    scheduler = make()
    first, second = *scheduler.add(ask("a", 3, max_tokens=1)), *scheduler.add(ask("b", 3))
    plan = step(scheduler)
    assert [row.fresh for row in plan.rows] == [True, True]
    assert [row.sequence.slot for row in plan.rows] == [-1, 1], "a has ended and left slot 0"
    (third,) = scheduler.add(ask("c", 5))
    plan = planned(scheduler)
    assert [(row.sequence, row.fresh) for row in plan.rows] == [(third, True), (second, False)]
    assert first.finish_reason == "length"


def test_a_step_is_planned_before_the_one_before_is_committed() -> None:
    scheduler = make()
    (sequence,) = scheduler.add(ask("a", 3, max_tokens=3))
    first = planned(scheduler)
    second = planned(scheduler)
    (row,) = second.rows
    assert (row.start, row.tokens, row.position, row.samples) == (3, (-1,), 1, True)
    commit(scheduler, first, 40)
    third = planned(scheduler)
    assert (third.rows[0].tokens, third.rows[0].position) == ((-1,), 2)
    commit(scheduler, second, 41)
    assert scheduler.plan() is None, "what is in flight ends it"
    assert commit(scheduler, third, 42) == [advance(sequence, 42)]
    assert (sequence.output, sequence.finish_reason) == ([40, 41, 42], "length")
    assert not scheduler.has_work


def planned_drafts(scheduler: Scheduler, sequence: Sequence, drafts: tuple[int, ...]) -> Plan:
    """A plan whose one row has drafts, as many as may be."""
    plan = scheduler.plan(None, lambda of, most: Proposal(drafts[:most], 1, "own text") if of is sequence else None)
    assert plan is not None
    return plan


def drafted(plan: Plan, sequence: Sequence, *tokens: int, accepted: int) -> Advance:
    """An advance of a row with drafts."""
    count = len(row_of(plan, sequence).drafts)
    return Advance(sequence, tuple(map(SampledToken, tokens)), drafted=count, accepted=accepted, origin="own text")


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_row_may_yield_several_tokens_and_what_is_missing_is_computed_again(kept: int) -> None:
    scheduler = make()
    (sequence,) = scheduler.add(ask("a", 5, max_tokens=20))
    step(scheduler, 40)
    plan = planned_drafts(scheduler, sequence, (41, 42))
    tokens = (41, 42, 43)[:kept]
    assert scheduler.commit(plan, [result(*tokens)]) == [drafted(plan, sequence, *tokens, accepted=kept - 1)]
    assert sequence.output == [40, *tokens]
    scheduler.check()
    (row,) = planned(scheduler).rows
    assert (row.start, row.tokens, row.position) == (5 + kept, (40 + kept,), 1 + kept)


@pytest.mark.parametrize(
    ("tokens", "output", "reason"),
    [((41, STOP, 43), [40, 41, STOP], "stop"), ((41, 42, 43), [40, 41, 42, 43], "length")],
)
def test_tokens_behind_the_one_that_ends_a_sequence_are_dropped(
    tokens: tuple[int, ...], output: list[int], reason: str
) -> None:
    scheduler = make()
    (sequence,) = scheduler.add(ask("a", 5, max_tokens=4))
    step(scheduler, 40)
    plan = planned_drafts(scheduler, sequence, (41, 42, 43, 44))
    assert row_of(plan, sequence).drafts == (41, 42), "what the budget leaves"
    assert scheduler.commit(plan, [result(*tokens)]) == [drafted(plan, sequence, *output[1:], accepted=2)]
    assert (sequence.output, sequence.finish_reason) == (output, reason)
    scheduler.check()


def test_tokens_before_a_failed_one_count() -> None:
    scheduler = make()
    (sequence,) = scheduler.add(ask("a", 5))
    step(scheduler, 40)
    plan = planned_drafts(scheduler, sequence, (41, 42))
    failed = RowResult((SampledToken(41), SampledToken(0, failed=True), SampledToken(43)))
    (advanced,) = scheduler.commit(plan, [failed])
    assert (advanced.tokens, advanced.failed, advanced.accepted) == ((SampledToken(41),), True, 1)
    assert (sequence.output, sequence.finish_reason) == ([40, 41], "error")
    scheduler.check()


def test_a_committed_token_is_fed_by_its_id() -> None:
    scheduler = make()
    scheduler.add(ask("a", 3))
    step(scheduler, token=40)
    assert planned(scheduler).rows[0].tokens == (40,)


def test_overshoot_after_a_stop_token_is_dropped() -> None:
    scheduler = make()
    (sequence,) = scheduler.add(ask("a", 3))
    first, second = planned(scheduler), planned(scheduler)
    assert commit(scheduler, first, STOP) == [advance(sequence, STOP)]
    assert (sequence.finish_reason, scheduler.free_pages) == ("stop", 64)
    assert commit(scheduler, second) == []
    assert sequence.output == [STOP]
    scheduler.check()


def test_the_context_ends_a_sequence() -> None:
    scheduler = make(max_model_len=8, num_pages=3)
    (sequence,) = scheduler.add(ask("a", 5, max_tokens=100))
    run_out(scheduler)
    assert (len(sequence.output), sequence.finish_reason) == (3, "length")


def test_a_row_without_a_token_to_draw_ends_its_sequence_alone() -> None:
    scheduler = make()
    (failing,), (fine,) = scheduler.add(ask("a", 3)), scheduler.add(ask("b", 3))
    plan = planned(scheduler)
    failed = SampledToken(0, failed=True)
    assert scheduler.commit(plan, [RowResult((failed,)), result(5)]) == [
        Advance(failing, failed=True),
        advance(fine, 5),
    ]
    assert (failing.output, failing.finish_reason) == ([], "error")
    assert (fine.output, fine.finish_reason) == ([5], None)


@pytest.mark.parametrize("results", [[], [result()], [result(1, 1)], [result(1), result(1)]])
def test_results_that_do_not_fit_the_plan_are_refused(results: list[RowResult]) -> None:
    scheduler = make()
    scheduler.add(ask("a", 3))
    with pytest.raises(ValueError, match=r"came back|must come with a token"):
        scheduler.commit(planned(scheduler), results)


def test_a_scored_prompt_ends_without_a_sample() -> None:
    scheduler = make(max_num_batched_tokens=4)
    (sequence,) = scheduler.add(ask("a", 5, max_tokens=0, prompt_logprobs_from=0))
    first, second = planned(scheduler), planned(scheduler)
    assert [row.samples for row in (*first.rows, *second.rows)] == [False, False]
    assert scheduler.plan() is None
    assert commit(scheduler, first) == []
    assert commit(scheduler, second) == [Advance(sequence)]
    assert (sequence.output, sequence.finish_reason) == ([], "length")
    assert scheduler.free_pages == 64


def test_abort_and_finish_free_everything_at_once_in_any_state() -> None:
    scheduler = make(max_num_seqs=2)
    running = scheduler.add(ask("a", 9, n=2))
    waiting = scheduler.add(ask("b", 3, n=2))
    plan = planned(scheduler)
    assert scheduler.abort("b") == waiting
    assert scheduler.abort("a") == running
    assert (scheduler.free_pages, scheduler.num_running, scheduler.num_waiting) == (64, 0, 0)
    assert scheduler.abort("a") == scheduler.abort("never seen") == []
    scheduler.finish(running[0], "stop")
    assert running[0].finish_reason == "abort", "the first reason stays"
    (tenant,) = scheduler.add(ask("c", 3))
    row = planned(scheduler).rows[0]
    assert (row.sequence, row.fresh, tenant.slot) == (tenant, True, 0)
    assert commit(scheduler, plan) == []
    scheduler.check()


def test_equal_prompts_share_cached_pages_after_the_commit() -> None:
    scheduler = make()
    scheduler.add(ask("a", 12))
    plan = planned(scheduler)
    (early,) = scheduler.add(ask("b", 12))
    assert row_of(planned(scheduler), early).start == 0, "nothing is known to be computed yet"
    commit(scheduler, plan)
    (late,) = scheduler.add(ask("c", 12))
    row = row_of(planned(scheduler), late)
    assert (row.start, row.fresh, late.cached) == (8, True, 8), "the last token is always computed"
    assert late.pages.registered == 2
    assert (scheduler.prefix_hit_tokens, scheduler.prefix_query_tokens) == (8, 36)


def test_output_is_cached_too() -> None:
    scheduler = make()
    scheduler.add(ask("a", 3, max_tokens=7))
    run_out(scheduler)
    (sequence,) = scheduler.add(ask("b", (0, 1, 2, *[7] * 8)))
    step(scheduler)
    assert sequence.cached == 8, "prompt 3 and output 6 were computed, two full pages"


def test_isolation_keys_and_the_switch_stop_sharing() -> None:
    scheduler = make()
    scheduler.add(ask("a", 12, cache_key="x"))
    run_out(scheduler)
    (other,) = scheduler.add(ask("b", 12, cache_key="y"))
    step(scheduler)
    assert other.cached == 0
    scheduler = make(prefix_caching=False)
    for name in "ab":
        (sequence,) = scheduler.add(ask(name, 12))
        run_out(scheduler)
        assert (sequence.cached, scheduler.cached_pages, scheduler.prefix_query_tokens) == (0, 0, 0)


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (3, 0), (4, 4), (11, 8), (64, 16)])
def test_cache_max_len_bounds_what_is_kept(limit: int, expected: int) -> None:
    scheduler = make()
    scheduler.add(ask("a", 17, cache_max_len=limit))
    run_out(scheduler)
    (sequence,) = scheduler.add(ask("b", 17))
    step(scheduler)
    assert sequence.cached == expected


@pytest.mark.parametrize(("first", "start"), [(None, 16), (0, 0), (1, 0), (4, 0), (5, 4), (12, 8), (13, 12), (17, 16)])
def test_positions_to_be_scored_are_computed(first: int | None, start: int) -> None:
    scheduler = make()
    scheduler.add(ask("a", 17))
    run_out(scheduler)
    (sequence,) = scheduler.add(ask("b", 17, prompt_logprobs_from=first))
    assert row_of(planned(scheduler), sequence).start == start


def test_only_the_first_choice_computes_positions_for_their_scores() -> None:
    scheduler = make()
    leader, sibling = scheduler.add(ask("a", 10, n=2, prompt_logprobs_from=0))
    plan = planned(scheduler)
    assert spans(plan) == [("a", 0, 10)]
    assert row_of(planned(scheduler), sibling).start == 8
    commit(scheduler, plan)
    assert leader.output


@pytest.mark.parametrize("caching", [True, False])
def test_siblings_wait_for_the_prompt_and_share_its_full_pages(caching: bool) -> None:
    scheduler = make(prefix_caching=caching)
    leader, *others = scheduler.add(ask("a", 10, n=3))
    (behind,) = scheduler.add(ask("b", 3))
    assert spans(planned(scheduler)) == [("a", 0, 10)], "a page is read in a later step than it is written in"
    plan = planned(scheduler)
    assert [row_of(plan, sequence).start for sequence in others] == [8, 8]
    assert row_of(plan, behind).start == 0
    for sequence in others:
        assert held(sequence)[:2] == held(leader)[:2]
        assert held(sequence)[2] != held(leader)[2]
        assert sequence.cached == leader.cached == 0
    assert scheduler.free_pages == 64 - 3 - 2 - 1
    scheduler.check()
    scheduler.finish(leader, "stop")
    scheduler.check()
    assert scheduler.abort("a") == others


def test_siblings_of_a_short_prompt_start_together() -> None:
    scheduler = make()
    scheduler.add(ask("a", 4, n=3))
    assert spans(planned(scheduler)) == [("a", 0, 4)] * 3


def test_a_sibling_whose_leader_is_gone_computes_the_prompt_itself() -> None:
    scheduler = make(prefix_caching=False, max_num_seqs=1)
    leader, sibling = scheduler.add(ask("a", 10, n=2))
    plan = planned(scheduler)
    scheduler.finish(leader, "stop")
    assert row_of(planned(scheduler), sibling).start == 0
    assert commit(scheduler, plan) == []


def test_pages_that_a_sibling_took_over_reach_the_cache_without_the_leader() -> None:
    scheduler = make()
    leader, _ = scheduler.add(ask("a", 10, n=2))
    first = planned(scheduler)
    second = planned(scheduler)
    scheduler.finish(leader, "stop")
    commit(scheduler, first)
    commit(scheduler, second)
    (late,) = scheduler.add(ask("b", 10))
    step(scheduler)
    assert late.cached == 8


def crowd() -> tuple[Scheduler, Sequence, Sequence]:
    """Two sequences that fit while their prompts are computed, and not for long after."""
    scheduler = make(max_model_len=24, num_pages=8, prefix_caching=False)
    (old,), (young,) = scheduler.add(ask("old", 11, 12)), scheduler.add(ask("young", 7, 12))
    return scheduler, old, young


def test_the_youngest_loses_its_pages_and_comes_back_with_its_output() -> None:
    scheduler, old, young = crowd()
    while young.state is not SequenceState.WAITING or not young.preemptions:
        step(scheduler)
        scheduler.check()
    kept = list(young.output)
    assert (old.preemptions, young.preemptions, scheduler.preemptions) == (0, 1, 1)
    assert kept
    assert (bool(young.pages), young.slot, young.computed) == (False, -1, 0)
    scheduler.add(ask("later", 1))
    while young.state is SequenceState.WAITING:
        plan = step(scheduler)
    row = row_of(plan, young)
    assert row.fresh
    assert row.start == 0
    assert row.tokens == (*range(7), *kept)
    assert row.position == len(kept)
    run_out(scheduler)
    assert len(old.output) == len(young.output) == 12


def test_a_preempted_sequence_waits_for_its_sample_in_flight() -> None:
    scheduler, old, young = crowd()
    before = planned(scheduler)
    while young.state is not SequenceState.WAITING or not young.preemptions:
        after = planned(scheduler)
        if young.preemptions:
            break
        commit(scheduler, before)
        before = after
    assert young not in [row.sequence for row in after.rows]
    assert young.sampled == len(young.output) + 1
    scheduler.abort("old")
    assert scheduler.plan() is None, "there is room, but the sample is not known yet"
    known = len(young.output)
    commit(scheduler, before, 55)
    assert young.output[known:] == [55]
    assert row_of(planned(scheduler), young).tokens == (*range(7), *young.output)
    assert commit(scheduler, after) == []
    assert old.finish_reason == "abort"


def test_a_preempted_sequence_finds_its_pages_in_the_cache() -> None:
    scheduler = make(max_model_len=24, num_pages=8)
    scheduler.add(ask("old", (5,) * 11, 12))
    (young,) = scheduler.add(ask("young", 7, 12))
    while not young.preemptions:
        step(scheduler)
    scheduler.abort("old")
    assert row_of(planned(scheduler), young).start > 0
    assert young.cached == 0, "counted at the first admission only"


def test_a_head_that_lacks_pages_is_not_overtaken() -> None:
    scheduler = make(max_model_len=24, num_pages=8)
    (old,) = scheduler.add(ask("old", (5,) * 15, 4))
    (big,), (small,) = scheduler.add(ask("big", 20, 2)), scheduler.add(ask("small", 1, 2))
    while old.state is not SequenceState.FINISHED:
        assert big.state is small.state is SequenceState.WAITING
        step(scheduler)
    assert spans(planned(scheduler)) == [("big", 0, 20), ("small", 0, 1)]


def test_a_newcomer_leaves_each_running_sequence_a_page_to_grow() -> None:
    scheduler = make(max_model_len=24, num_pages=8)
    (old,) = scheduler.add(ask("old", (5,) * 15, 3))
    (exact,) = scheduler.add(ask("exact", 12, 1))
    while old.state is not SequenceState.FINISHED:
        assert exact.state is SequenceState.WAITING, "3 pages are free, old may need the next of them"
        step(scheduler)
    assert spans(planned(scheduler)) == [("exact", 0, 12)]
    assert scheduler.preemptions == 0


def test_short_answers_do_not_hold_up_a_long_prompt() -> None:
    scheduler = make(max_num_batched_tokens=6, max_num_seqs=8, max_model_len=64, num_pages=200)
    (long,) = scheduler.add(ask("long", 40, 2))
    for number in range(40):
        scheduler.add(ask(f"short{number}", 1, 60))
    for _ in range(10):
        step(scheduler)
    assert long.output, "its 10 chunks of 4 take 10 steps, whatever else runs"


def test_a_prompt_comes_in_when_the_running_leave_it_a_chunk_and_nobody_overtakes_it() -> None:
    scheduler = make(max_num_batched_tokens=4, max_num_seqs=8)
    old = [scheduler.add(ask(f"old{number}", 1, 8))[0] for number in range(2)]
    step(scheduler)
    (long,), (short,) = scheduler.add(ask("long", 8, 2)), scheduler.add(ask("short", 1, 2))
    for _ in range(7):
        assert spans(step(scheduler))[0][0] == "old0"
    assert [len(sequence.output) for sequence in old] == [8, 8]
    assert long.state is short.state is SequenceState.WAITING
    assert spans(step(scheduler)) == [("long", 0, 4)]
    run_out(scheduler)


def test_check_sees_lost_pages_and_slots() -> None:
    def broken(change: Any) -> None:
        scheduler = make()
        (sequence,) = scheduler.add(ask("a", 9))
        scheduler.add(ask("b", 9, n=2))
        step(scheduler)
        scheduler.check()
        change(scheduler, sequence)
        with pytest.raises(RuntimeError):
            scheduler.check()

    broken(lambda scheduler, sequence: sequence.pages.runs.pop())
    broken(lambda scheduler, sequence: sequence.pages.runs[0].pages.pop())
    broken(lambda scheduler, sequence: sequence.pages.runs[0].pages.append(3))
    broken(lambda scheduler, sequence: setattr(sequence.pages, "block", None))
    broken(lambda scheduler, sequence: scheduler._slots.pop())
    broken(lambda scheduler, sequence: scheduler._slots.append(sequence.slot))
    broken(lambda scheduler, sequence: scheduler._running.update({sequence: scheduler._running.pop(sequence)}))
    broken(lambda scheduler, sequence: scheduler._live.pop("a"))
    broken(lambda scheduler, sequence: scheduler._calls._waiting.update({"gone": ""}))
    broken(lambda scheduler, sequence: setattr(next(iter(scheduler._waiting)), "slot", 2))


def test_older_prompts_leave_the_tokens_of_younger_sequences() -> None:
    scheduler = make(max_num_batched_tokens=8, max_num_seqs=8)
    (brief,), (long,) = scheduler.add(ask("brief", 1, 1)), scheduler.add(ask("long", 40))
    young = [scheduler.add(ask(f"young{number}", 1))[0] for number in range(3)]
    plan = step(scheduler)
    assert spans(plan) == [("brief", 0, 1), ("long", 0, 4), ("young0", 0, 1), ("young1", 0, 1), ("young2", 0, 1)]
    assert brief.finish_reason == "length"
    plan = planned(scheduler)
    assert row_of(plan, long).count == 4, "8 would leave nothing to the three behind it"
    assert all(row_of(plan, sequence).count == 1 for sequence in young)


WINDOWED: dict[str, Any] = {"page_windows": (None, 6), "num_pages": 65}
"""Two page groups; a query of the second sees 6 positions, its own included."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"page_windows": (None, 6), "num_pages": 27}, "needs 27 pages of 4, there are 26"),
        ({"page_windows": (6, 6), "num_pages": 22}, "needs 22 pages of 4, there are 21"),
        ({"page_windows": (100,), "num_pages": 16}, "needs 16 pages of 4, there are 15"),
    ],
)
def test_a_sequence_of_the_full_context_must_fit_in_all_groups(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
    make(**{**changes, "num_pages": changes["num_pages"] + 1})


def test_pages_behind_the_window_are_given_up_at_the_commit() -> None:
    scheduler = make(**WINDOWED, max_num_batched_tokens=16, prefix_caching=False)
    (sequence,) = scheduler.add(ask("a", 40))
    first = planned(scheduler)
    assert [len(run.pages) for run in sequence.pages.runs] == [10, 4], "all of the prompt, the first chunk"
    second = planned(scheduler)
    assert [len(run.pages) for run in sequence.pages.runs] == [10, 8], "the first chunk is still in flight"
    assert [(start, len(pages)) for start, pages in row_of(second, sequence).pages] == [(0, 8), (2, 6)]
    commit(scheduler, first)
    assert [(run.first, run.end) for run in sequence.pages.runs] == [(0, 10), (2, 8)], "position 16 sees 11 to 16"
    assert scheduler.free_pages == 64 - 10 - 6
    commit(scheduler, second)
    while len(sequence.output) < 7:
        step(scheduler)
    assert [(run.first, run.end) for run in sequence.pages.runs] == [(0, 12), (10, 12)], "position 46 sees 41 to 46"
    run_out(scheduler)
    assert scheduler.free_pages == 64


def test_a_prefix_is_found_by_the_window_before_its_end() -> None:
    scheduler = make(**WINDOWED)
    scheduler.add(ask("a", 40, 1))
    run_out(scheduler)
    assert scheduler.cached_pages == 20
    (same,), (shorter,) = scheduler.add(ask("b", 40)), scheduler.add(ask("c", 23))
    plan = planned(scheduler)
    assert [(row_of(plan, s).start, s.cached) for s in (same, shorter)] == [(36, 36), (20, 20)]
    assert [(run.first, run.end) for run in same.pages.runs] == [(0, 10), (7, 10)], "position 36 sees 31 to 36"
    scheduler.check()


def test_a_chain_of_windows_alone_outlives_its_first_pages() -> None:
    scheduler = make(page_windows=(6,), num_pages=14, max_num_batched_tokens=8, max_model_len=100)
    scheduler.add(ask("a", 80, 1))
    run_out(scheduler)
    assert scheduler.cached_pages == 13, "of 20 that were registered"
    (again,), (shorter,) = scheduler.add(ask("b", 80, 1)), scheduler.add(ask("c", 20, 1))
    step(scheduler)
    assert (again.cached, shorter.cached) == (76, 0)
    run_out(scheduler)


def test_siblings_share_the_window_or_compute_the_prompt_again() -> None:
    scheduler = make(**WINDOWED, prefix_caching=False, max_num_seqs=2)
    leader, sibling, late = scheduler.add(ask("a", 22, n=3))
    first = planned(scheduler)
    second = planned(scheduler)
    assert row_of(second, sibling).start == 20
    assert [(run.first, run.end) for run in sibling.pages.runs] == [(0, 6), (3, 6)]
    assert held(sibling, 1)[:2] == held(leader, 1)[3:5]
    commit(scheduler, first)
    commit(scheduler, second)
    while len(leader.output) < 6:
        step(scheduler)
    scheduler.finish(sibling, "stop")
    assert leader.pages.runs[1].first == 5
    assert row_of(planned(scheduler), late).start == 0, "nobody has position 15 any more"
    scheduler.check()


def test_a_sequence_waits_for_its_own_pages_before_it_takes_those_of_others() -> None:
    scheduler = make(page_windows=(4,), num_pages=8, max_num_batched_tokens=16, max_model_len=64, prefix_caching=False)
    (old,), (young,) = scheduler.add(ask("old", 50, 1)), scheduler.add(ask("young", 1, 40))
    first = planned(scheduler)
    assert spans(first) == [("old", 0, 16)]
    assert scheduler.plan() is None, "two chunks need 8 pages, there are 7"
    commit(scheduler, first)
    assert spans(planned(scheduler)) == [("old", 16, 32)]
    assert (old.preemptions, young.preemptions) == (0, 0)


def test_newcomers_leave_a_prompt_under_way_the_pages_for_its_chunks() -> None:
    scheduler = make(page_windows=(16,), num_pages=16, max_num_batched_tokens=17, prefix_caching=False)
    (long,), (other,) = scheduler.add(ask("long", 48, 1)), scheduler.add(ask("other", 30, 2))
    while long.finish_reason is None:
        step(scheduler)
        assert other.preemptions == long.preemptions == 0
    run_out(scheduler)
    assert scheduler.preemptions == 0


def test_a_newcomer_comes_in_when_its_later_chunks_will_fit_too() -> None:
    scheduler = make(page_windows=(16,), num_pages=14, max_num_batched_tokens=18, prefix_caching=False)
    (old,), (new,) = scheduler.add(ask("old", 14, 4)), scheduler.add(ask("new", 40, 2))
    while old.finish_reason is None:
        step(scheduler)
        assert new.state is SequenceState.WAITING, "its first chunk has room beside 4 or 5 pages, the third has not"
    assert spans(planned(scheduler)) == [("new", 0, 16)]
