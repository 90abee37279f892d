"""The server under observation: its metrics, and what the kernel says of its process (Linux)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.http.servers import started


@dataclass(frozen=True)
class Figures:
    """A moment of the process."""

    resident_mb: float
    files: int
    threads: int
    free_pages: int


@dataclass
class Watched:
    """A server that answers requests at `url` from process `pid`."""

    url: str
    pid: int

    def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics`, by its name with labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def engine(self, field: str) -> int:
        """A number of the engine."""
        found = self.metrics()
        return int(next(found[name] for end in ("", "_total") if (name := f"jaxserve_engine_{field}{end}") in found))

    def wait_idle(self, seconds: float = 60) -> None:
        """Until nothing runs or waits.

        Raises:
            TimeoutError: something still does.
        """
        until = time.monotonic() + seconds
        while self.engine("running") or self.engine("waiting"):
            if time.monotonic() > until:
                raise TimeoutError("the engine is still busy")
            time.sleep(0.05)

    def look(self) -> Figures:
        """The process as it is now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return Figures(
            resident_mb=int(fields["VmRSS"].split()[0]) / 1024,
            files=len(list(Path(f"/proc/{self.pid}/fd").iterdir())),
            threads=int(fields["Threads"]),
            free_pages=self.engine("free_pages"),
        )


@contextmanager
def serving(*flags: str, model: str = "story") -> Iterator[Watched]:
    """`jaxserve serve MODEL FLAGS...` in a process of its own, on the CPU."""
    command = [sys.executable, "-m", "jaxserve", "serve", model, "--host", "127.0.0.1", "--port", "{port}", *flags]
    with started("jaxserve", command, "/ready") as server:
        yield Watched(server.base, server.process)
