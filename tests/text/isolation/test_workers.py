"""Worker processes: limits that hold whatever the work does, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxserve.errors import EngineStopped, Overloaded
from jaxserve.text.isolation import Limits, Overrun, Workers

sys.path.insert(0, str(Path(__file__).parent))  # the workers import it by name

from tasks import Acts, BrokenTask

MEBIBYTE = 2**20
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=1.5, memory_bytes=128 * MEBIBYTE)


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(Acts(), LIMITS, patience=0.3)
    yield pool
    pool.close()


def processes_of(pool: Workers) -> set[int]:
    """The pids of the pool's own session."""
    assert pool._nursery is not None
    listed = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(pool._nursery._process.pid)], capture_output=True, text=True, check=False
    )
    return set(map(int, listed.stdout.split()))


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]


@pytest.mark.parametrize("value", [None, 5, "text" * 100_000, {"a": [1, 2.5]}])
def test_arguments_and_results_cross(workers: Workers, value: Any) -> None:
    assert workers.run("echo", value) == value


@pytest.mark.parametrize(
    ("what", "argument", "says"),
    [
        ("spin", None, "longer than 0.5 seconds"),
        ("native", None, "longer than 0.5 seconds"),
        ("sleep", 60, "longer than"),
        ("allocate", 1000 * MEBIBYTE, "more than 128 MiB of memory"),
        ("abort", None, "memory"),
    ],
)
def test_what_passes_a_limit_ends_alone(workers: Workers, what: str, argument: Any, says: str) -> None:
    workers.run("echo")
    begun = time.monotonic()
    with pytest.raises(Overrun, match=says):
        workers.run(what, argument)
    assert time.monotonic() - begun < 6
    assert workers.run("echo", "the next") == "the next"


def test_what_fits_the_limits_is_done(workers: Workers) -> None:
    assert workers.run("allocate", 30 * MEBIBYTE) == 30 * MEBIBYTE
    workers.run("sleep", 1.0)


def test_clocks_are_those_of_one_piece_of_work(workers: Workers) -> None:
    for _ in range(3):
        workers.run("sleep", 0.7)


def test_errors_of_the_work_are_raised_and_the_worker_is_kept(workers: Workers) -> None:
    first = workers.run("pid")
    with pytest.raises(ValueError, match="this way"):
        workers.run("fail", "not this way")
    assert workers.run("pid") == first


def test_work_that_finds_no_worker_is_told_to_come_back(workers: Workers) -> None:
    workers.run("echo")
    threads = [threading.Thread(target=workers.run, args=("sleep", 1.2)) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    with pytest.raises(Overloaded):
        workers.run("echo")
    for thread in threads:
        thread.join()
    workers.run("echo")


def test_many_threads_share_the_workers() -> None:
    pool = Workers(Acts(), LIMITS, patience=30)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda i=i: results.append(pool.run("echo", i))) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(40))
    assert len(processes_of(pool)) <= 3
    pool.close()


@pytest.mark.parametrize("victim", ["worker", "nursery"])
def test_a_process_that_was_killed_is_replaced(workers: Workers, victim: str) -> None:
    worker = workers.run("pid")
    assert workers._nursery is not None
    pid = worker if victim == "worker" else workers._nursery._process.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not exists(pid))
    if victim == "nursery":
        os.kill(worker, signal.SIGKILL)
        until(lambda: not exists(worker))
    assert workers.run("pid") != worker


def test_a_task_that_can_not_be_prepared_does_not_hang(capfd: pytest.CaptureFixture[str]) -> None:
    pool = Workers(BrokenTask(), LIMITS)
    with pytest.raises((Overrun, OSError)):
        pool.run("echo")
    pool.close()
    assert "can't be prepared" in capfd.readouterr().err


def test_nothing_is_left_of_what_was_killed(workers: Workers) -> None:
    for _ in range(3):
        with pytest.raises(Overrun):
            workers.run("abort")
    workers.run("echo")
    until(lambda: len(processes_of(workers)) == 2)


def test_close_ends_running_work_and_every_process() -> None:
    pool = Workers(Acts(), Limits(30, 60, 128 * MEBIBYTE))
    pool.run("echo")
    raised: list[BaseException] = []

    def work() -> None:
        try:
            pool.run("spin")
        except EngineStopped as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    pids = processes_of(pool)
    begun = time.monotonic()
    pool.close()
    thread.join()
    assert time.monotonic() - begun < 2
    assert len(raised) == 1
    until(lambda: not any(map(exists, pids)))
    with pytest.raises(EngineStopped):
        pool.run("echo")
    pool.close()


@pytest.mark.parametrize("end", ["sys.exit()", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_no_process_outlives_its_server(end: str, tmp_path: Path) -> None:
    program = tmp_path / "server.py"  # without a main guard: workers must not run it again
    program.write_text(
        "import os, sys, threading, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from tasks import Acts\n"
        "from jaxserve.text.isolation import Limits, Workers\n"
        "pool = Workers(Acts(), Limits(0.5, 1.5, 2**27))\n"
        "print(pool._nursery, pool.run('pid'), pool._nursery._process.pid, flush=True)\n"
        "threading.Thread(target=pool.run, args=('spin',), daemon=True).start()\n"
        f"time.sleep(0.2)\n{end}\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    _, *pids = done.stdout.split()
    assert len(pids) == 2
    until(lambda: not any(exists(int(pid)) for pid in pids))


def test_a_worker_imports_no_jax() -> None:
    code = "import sys, jaxserve.text.grammar.trial, jaxserve.text.isolation.nursery; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "False", done.stderr
