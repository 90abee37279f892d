"""Host 0's side of a group: gathers the others, has them agree, sends them what its own devices execute."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from jaxserve.config import EngineConfig
from jaxserve.engine.command import StepCommand, to_words
from jaxserve.errors import ExitCode, HostLost, JaxserveError, ModelLoadError, exit_code
from jaxserve.hosts.facts import differing, from_fields, smallest
from jaxserve.hosts.link import Frame, Link, admit
from jaxserve.hosts.place import Place
from jaxserve.hosts.pulse import PING, SERVING, STARTING, Pulse, end_process_after

_log = logging.getLogger(__name__)
_AFTERMATH = 1.0
GRACE = 8.0
"""Seconds after a loss in which streams can be told, and the process ends whatever its threads do."""


class Leader:
    """Host 0. What followers tell is read by a thread for each.

    Args:
        place: this host's.
        facts: what must be the same on every host, see `facts.facts`.

    Raises:
        ModelLoadError: the address of the commands can't be used.
    """

    def __init__(self, place: Place, facts: Mapping[str, Any]) -> None:
        self.hosts = place.hosts
        self._place = place
        self._facts = facts
        self._links: dict[int, Link] = {}
        self._answers: queue.SimpleQueue[tuple[int, Frame] | JaxserveError] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pulse = Pulse()
        self._over = self._left = False
        self.loss: JaxserveError | None = None
        """What the group ended of, where it did not end as it should."""
        self.on_loss: Callable[[JaxserveError], None] = lambda error: None
        """Called once, on another thread, when a host is lost."""
        self.on_leave: Callable[[], None] = lambda: None
        """Called when another host was asked to end."""
        self._listening = _listen(place.address)

    def gather(self) -> None:
        """Waits for all hosts; each must have the same version and options.

        Raises:
            ModelLoadError: one is missing or differs.
        """
        deadline = time.monotonic() + self._place.patience
        with self._listening as listening:
            while missing := set(range(1, self._place.hosts)) - set(self._links):
                left = deadline - time.monotonic()
                if left <= 0:
                    names = ", ".join(map(str, sorted(missing)))
                    raise ModelLoadError(f"host {names} did not come within {self._place.patience:.0f} s")
                listening.settimeout(left)
                with suppress(TimeoutError):
                    self._admit(*listening.accept())
        for link in self._links.values():
            link.send("welcome")

    def agree(self, config: EngineConfig) -> EngineConfig:
        """The sizes that fit every host, known to all of them afterwards.

        Raises:
            ModelLoadError: they differ in what is not a matter of memory.
            HostLost: one is gone.
        """
        others = self._collect("sizes")
        agreed = smallest(config, {host: from_fields(config, frame.fields) for host, frame in others.items()})
        self._tell("sizes", **agreed.plain())
        return agreed

    def ready(self) -> None:
        """Until every host has compiled; from here on silence is noticed within seconds.

        Raises:
            HostLost: one is gone.
        """
        self._collect("ready")
        self._tell("serving")
        for link in self._links.values():
            link.allow_silence(SERVING)

    def send(self, command: StepCommand) -> None:
        """Has the others execute a command, after those sent before.

        Raises:
            HostLost: one is gone.
        """
        if self.loss is not None:
            raise self.loss
        self._tell("command", to_words(command).tobytes())

    def finish(self, code: ExitCode) -> ExitCode:
        """Ends the others as this host ends; returns the code of them all. A device that fails here often fails of
        what another host did, which is heard of a moment later."""
        deadline = time.monotonic() + _AFTERMATH
        while code == ExitCode.ENGINE_DIED and self.loss is None and time.monotonic() < deadline:
            time.sleep(0.05)
        code = code if self.loss is None else exit_code(self.loss)
        self.end(code if code.faulty else ExitCode.FINE, "host 0 has ended")
        return code

    def end(self, code: ExitCode, reason: str = "") -> None:
        """Tells the others how to end. Idempotent."""
        with self._lock:
            if self._over:
                return
            self._over = True
        for link in self._links.values():
            with suppress(HostLost):
                link.send("end", code=int(code), reason=reason)
        self._pulse.stop()

    # ------------------------------------------------------------------ inside

    def _admit(self, connection: socket.socket, address: tuple[Any, ...]) -> None:
        """Strangers are sent away; who knows the secret and differs ends the start."""
        try:
            link = admit(connection, self._place.secret, f"the host at {address[0]}")
            joined = link.receive()
        except JaxserveError as error:
            _log.warning("%s", error)
            connection.close()
            return
        host = int(joined.fields["host"])
        problem = differing(self._facts, joined.fields["facts"], host)
        if host in self._links or not 0 < host < self._place.hosts:
            problem = f"a host calls itself {host}, which there is already, or which --num-hosts excludes"
        if problem is not None:
            link.send("end", code=int(ExitCode.CANNOT_SERVE), reason=problem)
            raise ModelLoadError(problem)
        link.peer = f"host {host}"
        link.allow_silence(STARTING)
        self._links[host] = link
        self._pulse.start(link)
        threading.Thread(target=self._watch, args=(host, link), name=f"jaxserve-host-{host}", daemon=True).start()

    def _watch(self, host: int, link: Link) -> None:
        try:
            while (frame := link.receive()).kind != "failed":
                if frame.kind == "leaving":
                    self._leave(host)
                elif frame.kind != PING:
                    self._answers.put((host, frame))
            kind = ModelLoadError if frame.fields["code"] == ExitCode.CANNOT_SERVE else HostLost
            self._lose(kind(f"host {host} failed: {frame.fields['reason']}"))
        except HostLost as error:
            self._lose(error)

    def _leave(self, host: int) -> None:
        """Followers say it until they are heard."""
        if not self._left:
            self._left = True
            _log.warning("host %d was asked to end: so does the group", host)
            self.on_leave()

    def _lose(self, error: JaxserveError) -> None:
        with self._lock:
            if self._over or self.loss is not None:
                return
            self.loss = error
        _log.critical("%s", error)
        code = exit_code(error)
        end_process_after(GRACE, code)
        self._answers.put(error)
        self.on_loss(error)
        self.end(code, str(error))

    def _tell(self, kind: str, body: bytes = b"", **fields: Any) -> None:
        for link in self._links.values():
            try:
                link.send(kind, body, **fields)
            except HostLost as error:
                self._lose(error)
                raise

    def _collect(self, kind: str) -> dict[int, Frame]:
        """One frame of each other host."""
        found: dict[int, Frame] = {}
        while len(found) < len(self._links):
            answer = self._answers.get()
            if isinstance(answer, JaxserveError):
                raise answer
            host, frame = answer
            if frame.kind != kind:
                raise HostLost(f"host {host} said {frame.kind} where {kind} was expected")
            found[host] = frame
        return found


def _listen(address: tuple[str, int]) -> socket.socket:
    """At the named address where it is this machine's, else (behind a translated address) at all of them."""
    name, port = address
    try:
        return socket.create_server((name, port))
    except OSError:
        pass
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise ModelLoadError(f"cannot listen for the other hosts on port {port}: {error.strerror}") from None
