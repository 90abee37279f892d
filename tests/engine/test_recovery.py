"""A step that fails: who broke it ends with an error, everybody else gets the tokens that they would have got."""

from __future__ import annotations

import queue

import pytest
from engine_configs import engine_config
from test_engine import VOCAB, Counting, Letters, drain, request, tokens, wait_until

from jaxserve.engine.engine import Engine
from jaxserve.engine.scheduler import Scheduler
from jaxserve.errors import EngineStopped, InternalError

BAD = "bad"


def has_bad(plan, least_output):
    return any(row.sequence.request.id == BAD and len(row.sequence.output) >= least_output for row in plan.rows)


class Fragile(Counting):
    """Fails at a stage of steps that hold the bad request once it has so many tokens, at most `times` times."""

    def __init__(self, stage, least_output=0, times=10**6):
        super().__init__()
        self.stage, self.least_output, self.times = stage, least_output, times
        self.rows = []

    def fail(self, stage, plan):
        if stage == self.stage and self.times > 0 and has_bad(plan, self.least_output):
            self.times -= 1
            raise KeyError("a defect")

    def launch(self, plan, *, held, masks):
        self.rows.append([row.sequence.request.id for row in plan.rows])
        self.fail("launch", plan)
        return super().launch(plan, held=held, masks=masks)

    def fetch(self, ticket):
        self.fail("fetch", ticket["plan"])
        return super().fetch(ticket)


class BrokenProperty:
    """A constraint that from some reading on can't tell whether it rules."""

    stands = False

    def __init__(self, readings):
        self.left = readings

    @property
    def constrains(self):
        self.left -= 1
        if self.left < 0:
            raise KeyError("a defect")
        return False

    def prepare(self, row):
        raise AssertionError("not reached")

    complete = prepare

    def advance(self, token):
        pass


def engine_of(runner, scheduler=Scheduler, **sizes):
    config = engine_config(max_model_len=256, num_pages=200, **sizes)
    return Engine(scheduler(config), runner, Letters(), total_pages=config.num_pages - 1, vocab_size=VOCAB)


def outputs(engine, requests):
    box = queue.SimpleQueue()
    for one in requests:
        engine.submit(one, box.put)
    deltas = drain(box, sum(one.n for one in requests))
    return {one.id: [delta for delta in deltas if delta.request_id == one.id] for one in requests}


def others(count, length=12):
    return [request(f"good{i}", prompt=range(10 * i, 10 * i + 3 + i), max_tokens=length) for i in range(count)]


def check_others(found, requests):
    for one in requests:
        last = one.prompt[-1]
        assert tokens(found[one.id]) == list(range(last + 1, last + 1 + one.max_tokens)), one.id
        assert found[one.id][-1].finish_reason == "length"


def check_rest(engine):
    wait_until(lambda: engine.stats().running == 0)
    assert engine.healthy
    assert engine.stats().free_pages == engine.stats().total_pages
    engine.close(timeout=10)
    assert engine.failure is None


@pytest.mark.parametrize("stage", ["launch", "fetch"])
@pytest.mark.parametrize("least_output", [0, 1, 5])
@pytest.mark.parametrize("slots", [2, 4])
def test_who_breaks_steps_ends_and_nobody_else(stage, least_output, slots):
    engine = engine_of(Fragile(stage, least_output), max_num_seqs=slots)
    good = others(5)
    found = outputs(engine, [*good[:2], request(BAD, max_tokens=20), *good[2:]])
    check_others(found, good)
    assert found[BAD][-1].finish_reason == "error"
    assert isinstance(found[BAD][-1].error, InternalError)
    assert tokens(found[BAD]) == list(range(1, 1 + len(tokens(found[BAD])))), "what was delivered is right"
    check_rest(engine)


@pytest.mark.parametrize("stage", ["launch", "fetch"])
@pytest.mark.parametrize("least_output", [0, 3])
def test_a_failure_that_does_not_come_back_ends_nobody(stage, least_output):
    runner = Fragile(stage, least_output, times=1)
    engine = engine_of(runner)
    everybody = [*others(3), request(BAD, max_tokens=9)]
    check_others(outputs(engine, everybody), everybody)
    check_rest(engine)


def test_every_choice_of_others_goes_on():
    engine = engine_of(Fragile("launch", 2))
    several = request("several", prompt=(5, 6), max_tokens=8, n=2)
    found = outputs(engine, [several, request(BAD, max_tokens=9)])
    for choice in range(2):
        assert tokens(found["several"], choice) == list(range(7, 15))
    assert found[BAD][-1].finish_reason == "error"
    check_rest(engine)


@pytest.mark.parametrize("readings", range(6))
def test_a_property_of_a_constraint_that_raises_ends_its_request_only(readings):
    """Before a launch or between a commit and its delivery: no token of the others is lost or comes twice."""
    engine = engine_of(Counting())
    good = others(3)
    found = outputs(engine, [*good, request(BAD, max_tokens=9, constraint=lambda: BrokenProperty(readings))])
    check_others(found, good)
    assert found[BAD][-1].finish_reason == "error"
    check_rest(engine)


def test_a_failure_with_nobody_running_ends_the_engine():
    class Planless(Scheduler):
        def plan(self, *wishes):
            raise KeyError("a defect")

    engine = engine_of(Counting(), Planless)
    found = outputs(engine, others(2))
    assert all(isinstance(deltas[-1].error, EngineStopped) for deltas in found.values())
    wait_until(lambda: not engine.healthy)
    assert isinstance(engine.failure, KeyError)


def test_the_engine_runs_ahead_again_when_all_have_proven_themselves():
    runner = Fragile("launch", 1)
    engine = engine_of(runner)
    outputs(engine, [request(BAD, max_tokens=9), *others(2, 5)])
    runner.rows.clear()
    good = others(3)
    check_others(outputs(engine, good), good)
    assert any(len(rows) == 3 for rows in runner.rows)
    check_rest(engine)


class FailsToPlan(Scheduler):
    """Raises in the middle of planning, once, while sequences run."""

    left = 1

    def plan(self, *wishes):
        plan = super().plan(*wishes)
        if self.left and self.num_running > 1:
            self.left -= 1
            raise KeyError("a defect")
        return plan


def test_a_plan_that_fails_once_ends_nobody():
    engine = engine_of(Counting(), FailsToPlan)
    everybody = others(5)
    check_others(outputs(engine, everybody), everybody)
    check_rest(engine)


class BrokenGrammar:
    """A constraint that raises in one of its methods, at its third call."""

    stands = False
    constrains = True

    def __init__(self, stage):
        self.stage, self.left = stage, 2

    def fail(self, stage):
        if stage == self.stage:
            self.left -= 1
            if self.left < 0:
                raise KeyError("a defect")

    def prepare(self, row):
        self.fail("prepare")

    def advance(self, token):
        self.fail("advance")


@pytest.mark.parametrize("stage", ["prepare", "advance"])
def test_a_grammar_that_raises_ends_its_request_only(stage):
    engine = engine_of(Counting())
    good = others(3)
    found = outputs(engine, [*good, request(BAD, max_tokens=9, constraint=lambda: BrokenGrammar(stage))])
    check_others(found, good)
    assert found[BAD][-1].finish_reason == "error"
    check_rest(engine)


class Illiterate(Letters):
    """Can't read the token 917, the second of the bad request and none of the others."""

    def stream(self, *, skip_special_tokens):
        inner = super().stream(skip_special_tokens=skip_special_tokens)

        class Stream(type(inner)):
            def push(self, token):
                if token == 917:
                    raise KeyError("a defect")
                return super().push(token)

        return Stream()


def test_a_detokeniser_that_raises_ends_its_request_only():
    config = engine_config(max_model_len=256, num_pages=200)
    engine = Engine(Scheduler(config), Counting(), Illiterate(), total_pages=199, vocab_size=VOCAB)
    good = others(3)
    found = outputs(engine, [*good, request(BAD, prompt=(914, 915), max_tokens=9)])
    check_others(found, good)
    assert tokens(found[BAD]) == [916]
    assert found[BAD][-1].finish_reason == "error"
    check_rest(engine)


@pytest.mark.parametrize("stage", ["launch", "fetch"])
def test_failures_while_pages_are_short_end_who_caused_them_only(stage):
    config = engine_config(max_model_len=64, num_pages=17, max_num_seqs=4)
    scheduler = Scheduler(config)
    engine = Engine(scheduler, Fragile(stage, 3), Letters(), total_pages=16, vocab_size=VOCAB)
    good = others(5, 30)
    found = outputs(engine, [*good[:2], request(BAD, max_tokens=20), *good[2:]])
    check_others(found, good)
    assert found[BAD][-1].finish_reason == "error"
    assert engine.stats().preemptions > 0
    check_rest(engine)
    scheduler.check()
