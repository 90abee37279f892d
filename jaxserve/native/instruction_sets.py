"""The instruction sets that the kernels are built for, and which of them this machine has."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class InstructionSet:
    """A build of the kernels."""

    name: str
    machines: tuple[str, ...]
    """As `platform.machine()` says; empty = any."""
    needs: frozenset[str]
    """Features of the processor, by their names in Linux's /proc/cpuinfo."""
    flags: tuple[str, ...]
    """Of the compiler."""


_X86 = ("x86_64", "AMD64")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
_AVX2_NEEDS = frozenset({"avx2", "fma", "f16c"})
_AVX512_NEEDS = _AVX2_NEEDS | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}

INSTRUCTION_SETS = (
    InstructionSet("avx512vnni", _X86, _AVX512_NEEDS | {"avx512_vnni"}, (*_AVX512, "-mavx512vnni")),
    InstructionSet("avx512", _X86, _AVX512_NEEDS, _AVX512),
    InstructionSet("avx2", _X86, _AVX2_NEEDS, _AVX2),
    InstructionSet("dotprod", ("aarch64", "arm64"), frozenset({"asimddp"}), ("-march=armv8.2-a+dotprod",)),
    InstructionSet("portable", (), frozenset(), ()),
)
"""The best first."""


def available(having: Iterable[str] | None = None, machine: str | None = None) -> tuple[InstructionSet, ...]:
    """The sets that a machine has, the best first; by default this machine."""
    machine = machine or platform.machine()
    have = features() if having is None else frozenset(having)
    return tuple(one for one in INSTRUCTION_SETS if machine in (one.machines or (machine,)) and one.needs <= have)


@cache
def features() -> frozenset[str]:
    """What the processor can do; on Apple's, which have no such file, what all of them can."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return frozenset({"asimddp"})
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        next((line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features"))), "").split()
    )
