"""Leader and followers over real connections, in one process: joining, agreeing, commands, and every way to end."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from jaxserve.config import EngineConfig
from jaxserve.engine.command import Draw
from jaxserve.errors import ExitCode, HostLost, ModelLoadError
from jaxserve.hosts import follower as follower_module
from jaxserve.hosts import leader as leader_module
from jaxserve.hosts.facts import facts
from jaxserve.hosts.follower import Follower
from jaxserve.hosts.leader import Leader
from jaxserve.hosts.place import Place
from jaxserve.options import EngineOptions
from jaxserve.resolve import bundled_model_dir

SECRET = b"a secret of enough length"
FACTS = {"jaxserve": "1", "--max-num-seqs": 8}
CONFIG = EngineConfig(
    model_dir=bundled_model_dir(),
    dtype="float32",
    max_num_seqs=4,
    max_model_len=512,
    page_size=16,
    num_pages=100,
    max_num_batched_tokens=32,
    token_buckets=(4, 32),
    page_windows=(None,),
    mesh_shape=(1, 2, 1),
    layer_loop="scan",
    prefix_caching=True,
    max_waiting=10,
)


class Group:
    """A leader, and followers that join it; what would end processes is noted instead."""

    def __init__(self, monkeypatch, hosts: int) -> None:
        self.ended: list[ExitCode] = []
        for module in (leader_module, follower_module):
            monkeypatch.setattr(module, "end_process_after", lambda seconds, code: self.ended.append(code))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.place = Place(f"127.0.0.1:{port - 1}", hosts, 0, SECRET, 20.0)
        self.leader = Leader(self.place, FACTS)
        self.followers = [Follower(replace(self.place, host=host), FACTS) for host in range(1, hosts)]

    def join(self, followers=None):
        """What came of joining: None or an error, the leader's first."""
        with ThreadPoolExecutor() as pool:
            calls = [pool.submit(self._gather), *(pool.submit(each.join) for each in followers or self.followers)]
            return [call.exception(30) for call in calls]

    def _gather(self):
        try:
            self.leader.gather()
        except ModelLoadError as error:
            self.leader.end(ExitCode.CANNOT_SERVE, str(error))
            raise

    def together(self, *calls):
        with ThreadPoolExecutor() as pool:
            return [call.result(30) for call in [pool.submit(call) for call in calls]]

    def serving(self):
        assert set(self.join()) == {None}
        self.together(*(lambda each=each: each.agree(CONFIG) for each in (self.leader, *self.followers)))
        self.together(*(each.ready for each in (self.leader, *self.followers)))
        return self


@pytest.fixture
def group(monkeypatch):
    made = Group(monkeypatch, 3)
    yield made
    made.leader.end(ExitCode.FINE)
    for thread in threading.enumerate():
        if thread.name == "jaxserve-host-0":
            thread.join(20)  # while the end of processes is still noted instead of brought about


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_host_executes_the_same_commands_in_order(group):
    group.serving()
    masks = [np.full((2, 3), number, np.int32) for number in range(20)]
    for mask in masks:
        group.leader.send(Draw(mask))
    group.leader.end(ExitCode.FINE)
    for each in group.followers:
        received = list(each.commands())
        assert [command.masks.tolist() for command in received] == [mask.tolist() for mask in masks]
    until(lambda: group.ended == [ExitCode.FINE] * 2)


def test_the_smallest_memory_decides_for_all(group):
    assert set(group.join()) == {None}
    configs = (CONFIG, replace(CONFIG, num_pages=70), replace(CONFIG, max_model_len=256, max_waiting=3))
    calls = [
        lambda each=each, config=config: each.agree(config)
        for each, config in zip((group.leader, *group.followers), configs, strict=True)
    ]
    agreed = group.together(*calls)
    assert [(each.num_pages, each.max_model_len) for each in agreed] == [(70, 256)] * 3
    assert [each.max_waiting for each in agreed] == [10, 10, 3]


def test_other_sizes_that_memory_does_not_decide_end_the_start(group):
    assert set(group.join()) == {None}
    for each, loop in zip(group.followers, ("unroll", "scan"), strict=True):
        each._told.send("sizes", **replace(CONFIG, layer_loop=loop).plain())
    with pytest.raises(ModelLoadError, match="hosts differ in layer_loop"):
        group.leader.agree(CONFIG)


@pytest.mark.parametrize(("name", "value"), [("jaxserve", "2"), ("--max-num-seqs", 4), ("--mesh", 2)])
def test_a_host_that_differs_ends_the_start_by_name(group, name, value):
    other = Follower(replace(group.place, host=1), {**FACTS, name: value})
    leaders, followers = group.join([other])
    words = f"host 1 differs in {name}: {value} there, {FACTS.get(name, 'unknown')} on host 0"
    assert str(leaders) == str(followers) == words
    assert isinstance(leaders, ModelLoadError)
    until(lambda: group.ended == [ExitCode.CANNOT_SERVE])


def test_a_host_that_is_there_already_is_refused(group):
    twins = [Follower(replace(group.place, host=1), FACTS) for _ in range(2)]
    assert "calls itself 1" in str(group.join(twins)[0])


def test_who_has_another_secret_is_left_outside(group):
    """It is refused at once, and the group goes on without it."""
    stranger = Follower(replace(group.place, host=1, secret=b"a guess of enough length"), FACTS)
    outcome = group.join([stranger, *group.followers])
    assert "host 0 has another host secret" in str(outcome[1])
    assert (outcome[0], *outcome[2:]) == (None, None, None)


def test_hosts_that_do_not_come_are_named(monkeypatch):
    group = Group(monkeypatch, 3)
    group.leader._place = replace(group.place, patience=1.5)
    with pytest.raises(ModelLoadError, match="host 1, 2 did not come within 2 s"):
        group.leader.gather()
    lonely = Follower(replace(group.place, host=1, patience=0.5), FACTS)
    with pytest.raises(ModelLoadError, match="host 0 can't be reached"):
        lonely.join()


def test_a_closed_connection_ends_the_group(group):
    lost = threading.Event()
    group.serving().leader.on_loss = lambda error: lost.set()
    group.followers[0]._told._socket.shutdown(socket.SHUT_RDWR)
    assert lost.wait(5)
    with pytest.raises(HostLost, match="host 1 is gone"):
        group.leader.send(Draw(np.zeros((1, 1), np.int32)))
    with pytest.raises(HostLost, match="host 1 is gone"):
        list(group.followers[1].commands())
    until(lambda: len(group.ended) == 3)
    assert set(group.ended) == {ExitCode.HOST_LOST}


def test_silence_ends_the_group(group, monkeypatch):
    monkeypatch.setattr(leader_module, "SERVING", 1.5)
    group.serving()
    time.sleep(1.5)  # a frame ends the wait that began under the limit of the start
    group.followers[1]._pulse.stop()  # alive, but it says nothing any more
    until(lambda: group.leader.loss is not None)
    assert "host 2 has been silent" in str(group.leader.loss)
    with pytest.raises(HostLost, match="host 2 has been silent"):
        list(group.followers[0].commands())


@pytest.mark.parametrize(
    ("error", "code"),
    [(HostLost("the link"), ExitCode.HOST_LOST), (ModelLoadError("no weights there"), ExitCode.CANNOT_SERVE)],
)
def test_a_host_that_fails_says_of_what(group, error, code):
    group.serving()
    group.followers[0].fail(error)
    until(lambda: group.leader.loss is not None)
    assert str(group.leader.loss) == f"host 1 failed: {error}"
    with pytest.raises(type(error), match="host 1 failed"):
        list(group.followers[1].commands())
    assert group.leader.finish(ExitCode.ENGINE_DIED) == code


def test_a_failure_while_others_load_ends_their_wait(group):
    assert set(group.join()) == {None}
    group.followers[0].fail(ModelLoadError("no weights there"))
    with pytest.raises(ModelLoadError, match="host 1 failed: no weights there"):
        group.leader.agree(CONFIG)
    with pytest.raises(ModelLoadError, match="host 1 failed: no weights there"):
        group.followers[1].agree(CONFIG)


def test_a_host_that_is_asked_to_end_asks_the_leader_once(group):
    asked: list[int] = []
    group.serving().leader.on_leave = lambda: asked.append(1)
    group.followers[0].leave()
    group.followers[1].leave()
    until(lambda: bool(asked))
    time.sleep(2.2)  # it is said every second
    assert asked == [1]


def test_an_engine_that_died_alone_has_its_own_code(group):
    group.serving()
    assert group.leader.finish(ExitCode.ENGINE_DIED) == ExitCode.ENGINE_DIED
    with pytest.raises(HostLost, match="host 0 has ended"):
        list(group.followers[0].commands())


def test_facts_tell_what_programs_depend_on(tmp_path):
    options = EngineOptions(bundled_model_dir(), max_num_seqs=4, mesh=2)
    ours = facts(options, 2)
    assert {"jaxserve", "jax", "jaxlib", "--num-hosts", "--max-num-seqs", "--mesh", "--dtype"} <= set(ours)
    assert facts(replace(options, max_waiting=3), 2) == ours
    assert facts(replace(options, speculate="ngram"), 2) != ours
    (tmp_path / "config.json").write_text((bundled_model_dir() / "config.json").read_text())
    assert facts(replace(options, model_dir=tmp_path), 2) == ours
