"""Priority requests come in first and keep their pages longest; they displace nobody who runs."""

from __future__ import annotations

import pytest
from engine_configs import engine_config

from jaxserve.engine.plan import RowResult, SampledToken
from jaxserve.engine.requests import Request
from jaxserve.engine.scheduler import Scheduler
from jaxserve.sampling.params import SamplingParams


def ask(scheduler: Scheduler, name: str, prompt: int = 5, max_tokens: int = 3) -> None:
    priority = name.startswith("p")
    scheduler.add(Request(name, tuple(range(prompt)), SamplingParams(), max_tokens, priority=priority))


def step(scheduler: Scheduler) -> list[str]:
    """Runs a step; the requests in it."""
    plan = scheduler.plan()
    assert plan is not None
    scheduler.commit(plan, [RowResult((SampledToken(7),) * row.samples) for row in plan.rows])
    scheduler.check()
    return sorted(row.sequence.request.id for row in plan.rows)


def test_they_come_in_before_all_who_wait_and_after_all_who_run() -> None:
    scheduler = Scheduler(engine_config(max_num_seqs=2))
    for name in ("a", "b", "c", "p1", "d", "p2"):
        ask(scheduler, name)
    assert [step(scheduler) for _ in range(9)] == 3 * [["p1", "p2"]] + 3 * [["a", "b"]] + 3 * [["c", "d"]]
    for name in ("a", "b"):
        ask(scheduler, name)
    first = step(scheduler)
    ask(scheduler, "c")
    ask(scheduler, "p")
    assert [first, *(step(scheduler) for _ in range(5))] == 3 * [["a", "b"]] + 3 * [["c", "p"]]


@pytest.mark.parametrize("order", ["ap", "pa"])
def test_they_keep_their_pages_and_come_back_first(order: str) -> None:
    """Two sequences that together outgrow the pages: the other one is sent back, whoever came first."""
    scheduler = Scheduler(engine_config(max_num_seqs=2, num_pages=1 + 17, max_model_len=64, prefix_caching=False))
    for name in order:
        ask(scheduler, name, prompt=16, max_tokens=40)
        step(scheduler)
    seen = [step(scheduler) for _ in range(39)]
    assert scheduler.preemptions > 0
    assert all("p" in names for names in seen[:38])
    assert ["p"] in seen
