"""The other hosts' side of a group: joins, agrees, and hands out the commands that come."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from jaxserve.config import EngineConfig
from jaxserve.engine.command import StepCommand, from_words
from jaxserve.errors import ExitCode, HostLost, ModelLoadError, exit_code
from jaxserve.hosts.facts import from_fields
from jaxserve.hosts.link import Frame, Link, greet
from jaxserve.hosts.place import Place
from jaxserve.hosts.pulse import PING, SERVING, STARTING, Pulse, end_process_after

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_LAST_SECONDS = 5.0
"""Time to end in order, once host 0 has said how; beyond it the process is ended."""


class Follower:
    """A host that executes what host 0 sends. One thread reads the link, so that an end is heard whatever runs.

    Args:
        place: this host's.
        facts: what must be the same on every host.
    """

    def __init__(self, place: Place, facts: Mapping[str, Any]) -> None:
        self._place, self._facts = place, facts
        self._link: Link | None = None
        self._frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._pulse = Pulse()

    def join(self) -> None:
        """Waits for host 0 and for all others to have come.

        Raises:
            ModelLoadError: host 0 does not come, or does not take this one.
            HostLost: it is gone.
        """
        self._link = link = self._connect()
        link.allow_silence(STARTING)
        link.send("join", host=self._place.host, facts=dict(self._facts))
        link.allow_silence(self._place.patience + STARTING)
        self._pulse.start(link)
        threading.Thread(target=self._read, args=(link,), name="jaxserve-host-0", daemon=True).start()
        self._expect("welcome")
        link.allow_silence(STARTING)

    def agree(self, config: EngineConfig) -> EngineConfig:
        """This host's sizes for those that fit every host."""
        self._told.send("sizes", **config.plain())
        return from_fields(config, self._expect("sizes").fields)

    def ready(self) -> None:
        """Everything is compiled here; returns when it is everywhere."""
        self._told.send("ready")
        self._expect("serving")
        self._told.allow_silence(SERVING)

    def commands(self) -> Iterator[StepCommand]:
        """What host 0 sends, until it ends the group in order.

        Raises:
            ModelLoadError: it ended because the model can't be served.
            HostLost: it ended by a fault.
        """
        while (frame := self._frames.get()).kind != "end":
            yield from_words(np.frombuffer(frame.body, "<i4"))
        _raise(frame)

    def leave(self) -> None:
        """This host was asked to end: host 0 will end the group. Safe in a signal handler."""
        self._pulse.say("leaving")

    def fail(self, error: Exception) -> None:
        """This host can't go on: host 0 will end the group, this process too."""
        with suppress(HostLost):
            self._told.send("failed", reason=str(error)[:500], code=int(exit_code(error)))

    @property
    def _told(self) -> Link:
        if self._link is None:
            raise RuntimeError("the host has not joined")
        return self._link

    def _connect(self) -> Link:
        deadline = time.monotonic() + self._place.patience
        while True:
            try:
                connection = socket.create_connection(self._place.address, timeout=_RETRY_SECONDS * 10)
                return greet(connection, self._place.secret, "host 0")
            except (OSError, HostLost) as error:
                if time.monotonic() > deadline:
                    raise ModelLoadError(f"host 0 can't be reached at {self._place.coordinator}: {error}") from None
            time.sleep(_RETRY_SECONDS)

    def _read(self, link: Link) -> None:
        """What isn't an end is for the thread that loads and executes, which may be anywhere."""
        try:
            while (frame := link.receive()).kind != "end":
                if frame.kind != PING:
                    self._frames.put(frame)
        except HostLost as error:
            frame = Frame("end", {"code": int(ExitCode.HOST_LOST), "reason": str(error)})
        self._pulse.stop()
        code = ExitCode(frame.fields["code"])
        code = ExitCode.HOST_LOST if code == ExitCode.ENGINE_DIED else code
        if code != ExitCode.FINE:
            _log.critical("the group ends: %s", frame.fields["reason"])
        self._frames.put(frame)
        end_process_after(_LAST_SECONDS, code)

    def _expect(self, kind: str) -> Frame:
        frame = self._frames.get()
        if frame.kind == "end":
            _raise(frame)
            raise SystemExit(ExitCode.FINE)
        if frame.kind != kind:
            raise HostLost(f"host 0 said {frame.kind} where {kind} was expected")
        return frame


def _raise(end: Frame) -> None:
    """What host 0 ended the group of; nothing after an end in order."""
    code, reason = ExitCode(end.fields["code"]), end.fields["reason"]
    if code == ExitCode.CANNOT_SERVE:
        raise ModelLoadError(reason)
    if code != ExitCode.FINE:
        raise HostLost(reason)
