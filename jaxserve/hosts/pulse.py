"""Signs of life: each side of a link says that it is there, so that silence means something."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress

from jaxserve.errors import ExitCode, HostLost
from jaxserve.hosts.link import Link

PING = "ping"
STARTING = 120.0
"""Seconds of silence that count as a loss while hosts load and compile: tracing keeps Python's lock for long."""
SERVING = 6.0
"""The same while serving: with `leader.GRACE` hosts end within ten seconds of a lost process, whose connection
closes at once, and of a lost machine, which is silent."""
_SECONDS = 1.0


class Pulse:
    """Sends pings over links until it is stopped."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._word = PING

    def start(self, link: Link) -> None:
        """Pings this link too."""
        threading.Thread(target=self._run, args=(link,), name="jaxserve-pulse", daemon=True).start()

    def say(self, word: str) -> None:
        """From now on this instead: what a signal handler, which may take no lock, has to tell."""
        self._word = word

    def stop(self) -> None:
        """Idempotent."""
        self._stopped.set()

    def _run(self, link: Link) -> None:
        with suppress(HostLost):  # who receives on the link notices too
            while not self._stopped.wait(_SECONDS):
                link.send(self._word)


def end_process_after(seconds: float, code: ExitCode) -> None:
    """Ends the process then, whatever its threads do: a collective with a host that is gone may never return."""

    def end() -> None:
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
