"""The engine loop with a runner whose tokens can be computed by hand: the next token is the last one plus one."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from engine_configs import engine_config

from jaxserve.engine.engine import Engine
from jaxserve.engine.plan import RowResult, SampledToken
from jaxserve.engine.requests import Delta, Request, TokenLogprob
from jaxserve.engine.scheduler import Scheduler
from jaxserve.errors import DeviceLost, EngineStopped, InternalError, Overloaded, RequestFailed
from jaxserve.sampling.params import SamplingParams

VOCAB = 1000
SIZES = {"max_model_len": 256, "num_pages": 200}


class Letters:
    """A tokenizer of one letter per token: id 1 is 'b'."""

    vocab_size = VOCAB
    bos_id = None
    eos_ids = (999,)

    def stream(self, *, skip_special_tokens):
        class Stream:
            def push(self, token):
                return chr(ord("a") + token % 26)

            def flush(self):
                return ""

            def pending(self):
                return ""

        return Stream()

    def encode(self, text, *, add_special_tokens):
        return [ord(letter) - ord("a") for letter in text]

    def token_text(self, token):
        return chr(ord("a") + token % 26)

    def decode(self, ids, *, skip_special_tokens):
        return "".join(chr(ord("a") + i % 26) for i in ids)

    def is_special(self, token):
        return False


class Counting:
    """Row results: last token + 1. Knows each slot's last token, as a device would."""

    compilations = 7

    def __init__(self, fail_on=None, gate=None, bad_token=None):
        self.last = {}
        self.fail_on = fail_on
        self.gate = gate
        self.bad_token = bad_token
        self.steps = 0
        self.held_steps = 0
        self.redrawn_rows = 0

    def launch(self, plan, *, held, masks):
        self.steps += 1
        if self.steps == self.fail_on:
            raise DeviceLost("the device is gone")
        slots = [row.sequence.slot for row in plan.rows]
        before = [self.last.get(slot) for slot in slots]
        ticket = {"plan": plan, "slots": slots, "before": before, "held": held, "again": ()}
        self.held_steps += held
        if not held:
            ticket["results"] = self.draw(ticket, range(len(slots)), masks and masks(plan, len(slots)))
        return ticket

    def sample(self, ticket, masks):
        assert ticket["held"]
        rows = len(ticket["slots"])
        ticket["results"] = self.draw(ticket, range(rows), masks(ticket["plan"], rows))

    def sample_again(self, ticket, again, masks):
        assert not ticket["held"]
        self.redrawn_rows += len(again)
        redrawn = self.draw(ticket, again, masks(ticket["plan"], len(ticket["slots"])))
        for index, result in zip(again, redrawn, strict=True):
            ticket["results"][index] = result

    def draw(self, ticket, indices, masks):
        results = []
        for index in indices:
            row, slot = ticket["plan"].rows[index], ticket["slots"][index]
            token = row.tokens[-1] if row.tokens[-1] >= 0 else ticket["before"][index]
            sampled = ()
            if row.samples:
                token += 1
                while masks is not None and not masks[index, token // 32] >> token % 32 & 1:
                    token += 1  # the next allowed one
                self.last[slot] = token
                score = TokenLogprob(token, -0.5, -0.25)
                sampled = (SampledToken(token, score, failed=token == self.bad_token),)
            results.append(RowResult(sampled=sampled))
        return results

    def fetch(self, ticket):
        if self.gate is not None:
            self.gate.wait(20)
        return ticket["results"]


def request(name="r", prompt=(0,), max_tokens=5, **more):
    return Request(id=name, prompt=tuple(prompt), sampling=SamplingParams(), max_tokens=max_tokens, **more)


def make(runner=None, **sizes):
    config = engine_config(**SIZES | sizes)
    return Engine(
        Scheduler(config), runner or Counting(), Letters(), total_pages=config.num_pages - 1, vocab_size=VOCAB
    )


@pytest.fixture
def engine():
    made = make()
    yield made
    made.close()


def collect(engine, *requests, seconds=10):
    """Submits and waits for every choice to end."""
    box = queue.SimpleQueue()
    for one in requests:
        engine.submit(one, box.put)
    return drain(box, sum(one.n for one in requests), seconds)


def drain(box, choices, seconds=10):
    deltas = []
    while choices:
        delta = box.get(timeout=seconds)
        deltas.append(delta)
        choices -= delta.finish_reason is not None
    return deltas


def tokens(deltas, choice=0):
    return [t for d in deltas if d.choice == choice for t in d.token_ids]


def text(deltas, choice=0):
    return "".join(d.text for d in deltas if d.choice == choice)


def test_one_request(engine):
    deltas = collect(engine, request(max_tokens=4))
    assert tokens(deltas) == [1, 2, 3, 4]
    assert text(deltas) == "bcde"
    assert deltas[-1].finish_reason == "length"
    timing = deltas[-1].timing
    assert timing.arrived <= timing.admitted <= timing.first_token <= timing.finished


def test_logprobs_only_when_asked(engine):
    assert all(d.logprobs == () for d in collect(engine, request()))
    assert [d.logprobs[0].logprob for d in collect(engine, request(logprobs=0))] == [-0.5] * 5


def test_stop_text_ends_the_choice_and_is_not_shown(engine):
    deltas = collect(engine, request(max_tokens=20, stop=("ef",)))
    assert text(deltas) == "bcd"
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].stop_text == "ef"


def test_text_held_back_for_a_stop_appears_when_the_sequence_ends_otherwise(engine):
    deltas = collect(engine, request(max_tokens=4, stop=("exz",)))
    assert text(deltas) == "bcde"
    assert deltas[-1].finish_reason == "length"


def test_stop_token_is_counted_but_not_shown(engine):
    deltas = collect(engine, request(max_tokens=20, stop_token_ids=(4,)))
    assert tokens(deltas) == [1, 2, 3, 4]
    assert text(deltas) == "bcd"
    assert deltas[-1].finish_reason == "stop"


def test_choices_of_one_request(engine):
    deltas = collect(engine, request(n=3, max_tokens=3, prompt=range(9)))
    assert [tokens(deltas, choice) for choice in range(3)] == [[9, 10, 11]] * 3


def test_many_requests_beyond_the_slots(engine):
    wanted = [request(f"r{i}", prompt=range(i + 1), max_tokens=3 + i % 5) for i in range(30)]
    deltas = collect(engine, *wanted)
    for i, one in enumerate(wanted):
        mine = [d for d in deltas if d.request_id == one.id]
        assert tokens(mine) == list(range(i + 1, i + 1 + one.max_tokens))
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().free_pages == engine.stats().total_pages
    assert engine.stats().generated_tokens == sum(one.max_tokens for one in wanted)


def test_score_only_request(engine):
    (delta,) = collect(engine, request(max_tokens=0, prompt=range(40), prompt_logprobs_from=0))
    assert delta.finish_reason == "length"
    assert delta.token_ids == ()
    assert delta.prompt_logprobs == (None,) * 40


def test_abort_frees_everything():
    gate = threading.Event()
    engine = make(Counting(gate=gate))
    box = queue.SimpleQueue()
    engine.submit(request("long", max_tokens=100), box.put)
    engine.submit(request("other", max_tokens=3), box.put)
    engine.abort("long")
    engine.abort("long")
    engine.abort("never heard of")
    gate.set()
    deltas = drain(box, 2)
    assert [d.finish_reason for d in deltas if d.request_id == "long"][-1] == "abort"
    assert tokens([d for d in deltas if d.request_id == "other"]) == [1, 2, 3]
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().free_pages == engine.stats().total_pages
    engine.close()


def test_overload_is_told_through_the_sink():
    gate = threading.Event()
    engine = make(Counting(gate=gate), max_num_seqs=1, max_waiting=1)
    box = queue.SimpleQueue()
    for i in range(8):
        engine.submit(request(f"r{i}", max_tokens=2), box.put)
    gate.set()
    deltas = drain(box, 8)
    refused = [d for d in deltas if d.error is not None]
    assert refused
    assert all(isinstance(d.error, Overloaded) for d in refused)
    served = {d.request_id for d in deltas} - {d.request_id for d in refused}
    assert all(tokens([d for d in deltas if d.request_id == name]) == [1, 2] for name in served)
    engine.close()


def test_an_idle_engine_takes_as_many_as_it_has_slots_and_places_to_wait():
    engine = make(Counting(), max_num_seqs=4, max_waiting=2)
    box = queue.SimpleQueue()
    for i in range(6):
        engine.submit(request(f"r{i}", max_tokens=2), box.put)
    deltas = drain(box, 6)
    assert all(d.error is None for d in deltas)
    for i in range(40):
        engine.submit(request(f"b{i}", max_tokens=2, call="batch"), box.put)
    assert all(d.error is None for d in drain(box, 40))
    engine.close()


def test_a_failed_row_fails_its_request_only():
    engine = make(Counting(bad_token=3))
    deltas = collect(engine, request("bad", max_tokens=9), request("good", prompt=(10,), max_tokens=9))
    bad = [d for d in deltas if d.request_id == "bad"]
    assert isinstance(bad[-1].error, RequestFailed)
    assert tokens([d for d in deltas if d.request_id == "good"]) == list(range(11, 20))
    engine.close()


class EvenTokens:
    """Allows even tokens only, once it has been told `after`; never `banned`; remembers what it was told."""

    def __init__(self, told, after=None, banned=None):
        self.told = told
        self.after = after
        self.banned = banned

    @property
    def stands(self):
        return self.banned is not None

    @property
    def constrains(self):
        return self.after is None or self.after in self.told

    def prepare(self, row):
        if self.constrains:
            row[:] = 0x55555555
        if self.banned is not None:
            row[self.banned // 32] &= ~(1 << self.banned % 32)

    def complete(self, row):
        raise AssertionError("no matcher was to be asked")

    def advance(self, token):
        self.told.append(token)


def test_a_constraint_sees_every_token_before_the_next_is_drawn(engine):
    told = []
    deltas = collect(
        engine, request("free", max_tokens=6), request("even", max_tokens=6, constraint=lambda: EvenTokens(told))
    )
    assert tokens([d for d in deltas if d.request_id == "even"]) == [2, 4, 6, 8, 10, 12]
    assert tokens([d for d in deltas if d.request_id == "free"]) == [1, 2, 3, 4, 5, 6]
    assert told == [2, 4, 6, 8, 10]


def test_a_constraint_that_waits_holds_no_step_up_and_rules_from_the_next_token_on():
    runner, told = Counting(), []
    engine = make(runner)
    waiting = request("waits", max_tokens=7, constraint=lambda: EvenTokens(told, after=3))
    deltas = collect(engine, waiting, request("free", max_tokens=7))
    assert tokens([d for d in deltas if d.request_id == "waits"]) == [1, 2, 3, 4, 6, 8, 10]
    assert tokens([d for d in deltas if d.request_id == "free"]) == [1, 2, 3, 4, 5, 6, 7]
    assert told[:3] == [1, 2, 3]
    assert runner.redrawn_rows == 1  # the token after the third had been drawn already
    assert 2 <= runner.held_steps <= 3
    engine.close()


def test_what_stands_while_a_constraint_waits_holds_no_step_up():
    runner = Counting()
    engine = make(runner)
    waiting = request("waits", max_tokens=8, constraint=lambda: EvenTokens([], after=5, banned=3))
    deltas = collect(engine, waiting, request("free", max_tokens=8))
    assert tokens([d for d in deltas if d.request_id == "waits"]) == [1, 2, 4, 5, 6, 8, 10, 12]
    assert tokens([d for d in deltas if d.request_id == "free"]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert runner.redrawn_rows == 1
    assert 2 <= runner.held_steps <= 3
    engine.close()


def test_a_constraint_that_never_rules_costs_no_held_step():
    runner = Counting()
    engine = make(runner)
    collect(engine, request("waits", max_tokens=9, constraint=lambda: EvenTokens([], after=500)))
    assert (runner.held_steps, runner.redrawn_rows) == (0, 0)
    engine.close()


def test_each_choice_has_a_constraint_of_its_own(engine):
    made = []

    def make_one():
        made.append([])
        return EvenTokens(made[-1])

    deltas = collect(engine, request(n=3, max_tokens=3, constraint=make_one))
    assert [tokens(deltas, choice) for choice in range(3)] == [[2, 4, 6]] * 3
    assert made == [[2, 4]] * 3


@pytest.mark.parametrize("method", ["prepare", "advance"])
def test_a_broken_constraint_fails_its_request_only(engine, method):
    def broken(*_):
        raise ValueError("broken grammar")

    constraint = EvenTokens([])
    setattr(constraint, method, broken)
    deltas = collect(engine, request("bad", constraint=lambda: constraint), request("good"))
    bad = [d for d in deltas if d.request_id == "bad"]
    assert isinstance(bad[-1].error, InternalError)
    assert tokens([d for d in deltas if d.request_id == "good"]) == [1, 2, 3, 4, 5]
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().free_pages == engine.stats().total_pages


def test_a_constraint_that_can_not_be_made_fails_its_request_only(engine):
    def broken():
        raise ValueError("broken grammar")

    deltas = collect(engine, request("bad", constraint=broken), request("good"))
    assert isinstance([d for d in deltas if d.request_id == "bad"][-1].error, InternalError)
    assert tokens([d for d in deltas if d.request_id == "good"]) == [1, 2, 3, 4, 5]
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().free_pages == engine.stats().total_pages


def test_a_raising_sink_disturbs_nobody(engine):
    def broken(delta: Delta) -> None:
        raise ValueError("broken sink")

    engine.submit(request("broken", max_tokens=50), broken)
    assert tokens(collect(engine, request("fine"))) == [1, 2, 3, 4, 5]
    assert engine.healthy


def test_a_dead_engine_tells_every_stream():
    deaths = []
    engine = Engine(
        Scheduler(engine_config(**SIZES)),
        Counting(fail_on=3),
        Letters(),
        total_pages=199,
        vocab_size=VOCAB,
        on_death=deaths.append,
    )
    box = queue.SimpleQueue()
    engine.submit(request("a", max_tokens=50), box.put)
    engine.submit(request("b", n=2, max_tokens=50), box.put)
    deltas = drain(box, 3)
    assert sorted((d.request_id, d.choice) for d in deltas if d.finish_reason == "error") == [
        ("a", 0),
        ("b", 0),
        ("b", 1),
    ]
    assert all(isinstance(d.error, EngineStopped) for d in deltas if d.finish_reason == "error")
    wait_until(lambda: not engine.healthy)
    assert not engine.ready
    assert isinstance(deaths[0], DeviceLost)
    with pytest.raises(EngineStopped):
        engine.submit(request("late"), box.put)
    engine.close()


def test_close_lets_running_requests_finish():
    engine = make()
    box = queue.SimpleQueue()
    engine.submit(request(max_tokens=100), box.put)
    engine.close(timeout=20)
    deltas = drain(box, 1)
    assert tokens(deltas) == list(range(1, 101))
    with pytest.raises(EngineStopped):
        engine.submit(request("late"), box.put)


def test_close_without_time_fails_running_requests():
    gate = threading.Event()
    engine = make(Counting(gate=gate))
    box = queue.SimpleQueue()
    engine.submit(request(max_tokens=100), box.put)
    threading.Timer(0.2, gate.set).start()
    engine.close(timeout=0)
    assert isinstance(drain(box, 1)[-1].error, EngineStopped)


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
