"""What one piece of work may use, and how the kernel is told."""

from __future__ import annotations

import resource
import signal
from dataclasses import dataclass
from pathlib import Path

_PAGE = resource.getpagesize()


class Overrun(Exception):
    """A piece of work was ended by its limits; the message says by which, as the end of a sentence."""


@dataclass(frozen=True)
class Limits:
    """What one piece of work may use before its process is killed."""

    cpu_seconds: float
    """Time it computes; what other processes take does not count."""
    wall_seconds: float
    memory_bytes: int
    """Address space on top of what the prepared process has. Linux only: macOS does not enforce it."""
    niceness: int = 0
    """How far the work steps back behind the threads that generate tokens."""

    def arm(self) -> None:
        """Starts the clocks of one piece of work in this process: when one runs out, the kernel ends the process."""
        signal.setitimer(signal.ITIMER_PROF, self.cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, self.wall_seconds)

    def disarm(self) -> None:
        """Stops the clocks."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def bound_memory(self) -> None:
        """Bounds the address space of this process, for good. Beyond it allocations fail; native code then aborts."""
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        held = address_space()
        if held:
            most = held + self.memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

    def reason(self, seconds: float) -> str:
        """Why a process that worked for so long was ended, as far as its clocks tell."""
        if seconds >= min(self.cpu_seconds, self.wall_seconds):
            return f"it takes longer than {self.cpu_seconds:g} seconds"
        return f"it takes more than {self.memory_bytes // 2**20} MiB of memory"


def address_space() -> int:
    """Bytes of this process's address space; 0 where the system doesn't tell."""
    return _statm(0)


def resident_memory() -> int:
    """Bytes of memory that this process holds; 0 where the system doesn't tell."""
    return _statm(1)


def _statm(column: int) -> int:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[column]) * _PAGE
    except OSError:
        return 0
