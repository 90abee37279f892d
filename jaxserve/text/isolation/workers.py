"""A pool of worker processes, as its users see it."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from jaxserve.errors import EngineStopped, Overloaded
from jaxserve.text.isolation.limits import Limits, Overrun
from jaxserve.text.isolation.nursery import FORK

_log = logging.getLogger(__name__)
_COMMAND = (
    "import sys; sys.path[:] = sys.argv[2:]\nfrom jaxserve.text.isolation.nursery import main; main(int(sys.argv[1]))"
)
_GRACE = 5.0
"""Seconds beyond the wall-clock limit after which a worker that its clock did not end is given up."""


class Task(Protocol):
    """What workers do. Instances are pickled."""

    def prepare(self) -> Callable[..., Any]:
        """Called once, in the process that workers are forked from; returns the function that they run.

        Its arguments and results are pickled.
        """


class Workers:
    """Processes that run one task within limits. Thread-safe.

    Not `multiprocessing`, nor the pools made of it (concurrent.futures, loky, pebble): their processes import the
    program's main module again, take as long to start anew as to start, and limit no memory.

    Args:
        task: what they do.
        limits: of each piece of work.
        size: workers at the same time.
        patience: seconds that a piece of work may wait for a worker.
    """

    def __init__(self, task: Task, limits: Limits, *, size: int = 2, patience: float = 10.0) -> None:
        self._setup = pickle.dumps((task, limits))
        self._limits = limits
        self._patience = patience
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._nursery: _Nursery | None = None
        self._closed = False

    def start(self) -> None:
        """Starts the process that workers are forked from, if it doesn't run; `run` does so by itself."""
        with self._lock:
            self._started()

    def run(self, *arguments: Any) -> Any:
        """Runs the task's function in a worker and returns its result.

        Raises:
            Overrun: a limit ended it.
            Overloaded: no worker became free in time.
            EngineStopped: the pool is closed, or was while this ran.
        """
        if not self._free.acquire(timeout=self._patience):
            raise Overloaded("too much work that needs a process of its own is waiting; try again later")
        try:
            return self._ask(self._send(arguments))
        finally:
            self._free.release()

    def close(self) -> None:
        """Ends all workers, whatever they do; those who wait for them get `EngineStopped`. Idempotent."""
        with self._lock:
            self._closed = True
            nursery, self._nursery = self._nursery, None
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()
        if nursery is not None:
            nursery.kill()

    def _send(self, arguments: tuple[Any, ...]) -> Connection:
        """The worker that has taken the arguments: an idle one, or a new one where that has died meanwhile."""
        with self._lock:
            worker = self._idle.pop() if self._idle else self._hatch()
        try:
            worker.send(arguments)
        except OSError:
            worker.close()
            with self._lock:
                worker = self._hatch()
            worker.send(arguments)
        return worker

    def _ask(self, worker: Connection) -> Any:
        begun = time.monotonic()
        try:
            if not worker.poll(self._limits.wall_seconds + _GRACE):
                raise EOFError
            result, error, old = worker.recv()
        except (EOFError, OSError):
            worker.close()
            raise self._loss(time.monotonic() - begun) from None
        self._keep(worker, old)
        if error is not None:
            raise error
        return result

    def _keep(self, worker: Connection, old: bool) -> None:
        with self._lock:
            if not (old or self._closed):
                self._idle.append(worker)
                return
        worker.close()

    def _loss(self, seconds: float) -> Exception:
        """Why a worker went without an answer."""
        with self._lock:
            if self._closed:
                return _stopped()
            if self._nursery is not None and self._nursery.dead():
                _log.error("the process that workers are forked from has died; the next piece of work starts it anew")
        return Overrun(self._limits.reason(seconds))

    def _hatch(self) -> Connection:
        """A new worker."""
        try:
            return self._started().fork()
        except OSError:
            return self._started().fork()

    def _started(self) -> _Nursery:
        if self._closed:
            raise _stopped()
        if self._nursery is not None and self._nursery.dead():
            self._nursery.kill()
            self._nursery = None
        if self._nursery is None:
            self._nursery = _Nursery(self._setup)
        return self._nursery


def _stopped() -> EngineStopped:
    return EngineStopped("the server is shutting down")


class _Nursery:
    """The process that workers are forked from, in a session of its own: a terminal's signals don't reach it."""

    def __init__(self, setup: bytes) -> None:
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-c", _COMMAND, str(theirs.fileno()), *sys.path]
        with theirs, tempfile.TemporaryFile() as file:
            file.write(setup)
            file.seek(0)
            self._process = subprocess.Popen(
                command, stdin=file, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )

    def fork(self) -> Connection:
        """A new worker's connection.

        Raises:
            OSError: the process has died.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(self._control, [FORK], [theirs.fileno()])
            return Connection(ours.detach())

    def dead(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Ends it and every worker, and waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._control.close()
