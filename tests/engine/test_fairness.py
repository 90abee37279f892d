"""Waiting clients come in alternately, one client's requests as they arrived, and nobody is forgotten."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
from engine_configs import engine_config

from jaxserve.engine.plan import RowResult, SampledToken
from jaxserve.engine.requests import Request
from jaxserve.engine.scheduler import Scheduler
from jaxserve.errors import Overloaded
from jaxserve.sampling.params import SamplingParams


def ask(scheduler: Scheduler, name: str, *, prompt: int = 5, max_tokens: int = 1, n: int = 1) -> None:
    """A request of the client that the first letter names."""
    prompt_ids = tuple(range(prompt))
    scheduler.add(Request(name, prompt_ids, SamplingParams(), max_tokens, n=n, client=name[0]))


def step(scheduler: Scheduler) -> list[str]:
    """Runs a step; the requests in it."""
    plan = scheduler.plan()
    assert plan is not None
    scheduler.commit(plan, [RowResult((SampledToken(7),) * row.samples) for row in plan.rows])
    scheduler.check()
    return [row.sequence.request.id for row in plan.rows]


def order(scheduler: Scheduler) -> list[str]:
    """Everything that waits, in the order it comes in (one slot, one token each)."""
    names = []
    while scheduler.has_work:
        names += step(scheduler)
    return names


def one_slot() -> Scheduler:
    return Scheduler(engine_config(max_num_seqs=1, prefix_caching=False))


def test_one_client_is_served_in_order_of_arrival() -> None:
    scheduler = one_slot()
    names = [f"a{index}" for index in range(9)]
    for index, name in enumerate(names):
        ask(scheduler, name, prompt=1 + 7 * index % 5)
    assert order(scheduler) == names


def test_a_lone_request_does_not_wait_for_the_many_of_another() -> None:
    scheduler = one_slot()
    for index in range(64):
        ask(scheduler, f"a{index}")
    assert step(scheduler) == ["a0"]
    ask(scheduler, "b")
    assert order(scheduler).index("b") <= 1


def test_clients_alternate_and_the_order_within_each_stays() -> None:
    scheduler = one_slot()
    for client in "abc":
        for index in range(4):
            ask(scheduler, f"{client}{index}")
    served = order(scheduler)
    assert served == [f"{client}{index}" for index in range(4) for client in "abc"]


def test_who_asks_for_less_comes_in_oftener() -> None:
    scheduler = one_slot()
    for index in range(4):
        ask(scheduler, f"a{index}", prompt=19)
    for index in range(12):
        ask(scheduler, f"b{index}", prompt=4)
    served = order(scheduler)
    assert [served.index(f"a{index}") for index in range(3)] == [3, 8, 13]


def test_a_client_that_was_away_has_saved_nothing_up() -> None:
    scheduler = one_slot()
    for index in range(20):
        ask(scheduler, f"a{index}")
        step(scheduler)
    for index in range(4):
        ask(scheduler, f"a{20 + index}")
        ask(scheduler, f"b{index}")
    assert [name[0] for name in order(scheduler)] == ["a", "b"] * 4


def test_what_was_given_up_is_not_counted() -> None:
    scheduler = one_slot()
    ask(scheduler, "a0")
    step(scheduler)
    ask(scheduler, "c0")
    for index in range(1, 50):
        ask(scheduler, f"b{index}")
        scheduler.abort(f"b{index}")
    ask(scheduler, "b50")
    ask(scheduler, "c1")
    assert order(scheduler) == ["c0", "b50", "c1"]


def test_new_clients_without_end_do_not_keep_an_old_one_waiting() -> None:
    """Each step another client that nobody has seen asks for the least there is; the fifth of the first still ends."""
    scheduler = one_slot()
    for index in range(5):
        ask(scheduler, f"a{index}", prompt=12)
    seen: list[str] = []
    for index in range(400):
        ask(scheduler, f"{chr(1000 + index)}", prompt=1)
        seen += step(scheduler)
    assert "a4" in seen


def test_one_client_does_not_fill_the_queue_for_all() -> None:
    """It is refused where `max_waiting` wait; each other one finds a place, until twice as many wait."""
    scheduler = Scheduler(engine_config(max_num_seqs=1, max_waiting=3, prefix_caching=False))
    for index in range(4):
        ask(scheduler, f"a{index}")
    for client in "abc":
        with pytest.raises(Overloaded) if client == "a" else nullcontext():
            ask(scheduler, f"{client}9")
    for again in ("b10", "c10"):
        with pytest.raises(Overloaded):
            ask(scheduler, again)
    ask(scheduler, "d0")
    with pytest.raises(Overloaded):
        ask(scheduler, "e0")
    scheduler.check()
    assert sorted(order(scheduler)) == ["a0", "a1", "a2", "a3", "b9", "c9", "d0"]


def test_turns_survive_preemptions() -> None:
    """Random traffic in few pages: `check` holds after every step, all end, and each client's in order of arrival."""
    rng = random.Random(3)
    scheduler = Scheduler(engine_config(max_num_seqs=4, num_pages=1 + 20, max_model_len=64, prefix_caching=False))
    first: dict[str, int] = {}
    for turn in range(6000):
        if turn < 200 and rng.random() < 0.5:
            ask(scheduler, f"{rng.choice('abc')}{turn}", prompt=rng.randint(1, 20), max_tokens=rng.randint(1, 40))
        if scheduler.has_work:
            for name in step(scheduler):
                first.setdefault(name, turn)
    assert not scheduler.has_work
    assert scheduler.preemptions > 0
    for client in "abc":
        began = [first[name] for name in sorted((n for n in first if n[0] == client), key=lambda n: int(n[1:]))]
        assert began == sorted(began)


def test_prompts_leave_growing_answers_most_of_a_step() -> None:
    """While one decodes, prompts get what the small budget leaves, at least a page; alone they get all there is."""
    scheduler = Scheduler(engine_config(max_num_batched_tokens=32, max_num_mixed_tokens=10, prefix_caching=False))
    ask(scheduler, "a", prompt=30, max_tokens=30)
    assert step(scheduler) == ["a"]
    ask(scheduler, "b", prompt=40)
    chunks = []
    while scheduler.has_work and (plan := scheduler.plan()) is not None:
        chunks += [row.count for row in plan.rows if row.sequence.request.id == "b"]
        scheduler.commit(plan, [RowResult((SampledToken(7),) * row.samples) for row in plan.rows])
        scheduler.check()
    assert chunks == [8] * 5
    ask(scheduler, "b", prompt=40)
    plan = scheduler.plan()
    assert plan is not None
    assert plan.num_tokens == 32
