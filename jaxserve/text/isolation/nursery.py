"""The process that workers are forked from: small, single-threaded, everything they need prepared once.

It reads file descriptors from its control socket and forks a worker for each. A worker serves the socket it was given
until its peer closes it, a limit ends it, or it has grown old. Nobody has to be told to end: all read end-of-file when
the server is gone, however it went.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from jaxserve.text.isolation.limits import Limits, address_space

FORK = b"f"
"""The message that comes with a worker's socket."""
MAX_JOBS = 1_000
"""Pieces of work after which a worker makes room for a fresh one."""

Work = Callable[..., Any]


def main(control: int) -> None:
    """Prepares the task that standard input brings, then forks workers until the control socket is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server decides when its workers end, and may drain first
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    task, limits = pickle.load(sys.stdin.buffer)
    os.nice(limits.niceness)
    work = task.prepare()
    with socket.socket(fileno=control) as messages:
        while True:
            message, descriptors, _, _ = socket.recv_fds(messages, len(FORK), 1)
            if not message:
                return
            if os.fork() == 0:
                messages.close()
                _live(descriptors[0], work, limits)
            os.close(descriptors[0])


def _live(descriptor: int, work: Work, limits: Limits) -> None:
    """A worker's life."""
    try:
        _silence()
        limits.bound_memory()
        _serve(Connection(descriptor), work, limits)
    finally:
        os._exit(0)


def _serve(peer: Connection, work: Work, limits: Limits) -> None:
    born = address_space()
    for jobs in range(1, MAX_JOBS + 1):
        try:
            arguments = peer.recv()
        except (EOFError, OSError):
            return
        limits.arm()
        result, error = _attempt(work, arguments)
        limits.disarm()
        old = jobs == MAX_JOBS or address_space() - born > limits.memory_bytes // 4
        peer.send((result, error, old))
        if old:
            return


def _attempt(work: Work, arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return work(*arguments), None
    except MemoryError:
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - raised again where the work was asked for
        return None, error


def _silence() -> None:
    """What native code prints when it panics or aborts is not for the server's log."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
