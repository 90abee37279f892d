"""Reads the optimised HLO of a GPU program: kernels, bytes moved, loops whose end the host must read.

Every instruction of the entry and of loop bodies that is no mere view is a kernel or a library call. Bytes are counted
from shapes: a fusion reads what its gathers and slices take of an operand, and the whole of other operands. What a
kernel of ours (a Mosaic call) reads depends on values, so its operands are not counted; but for dense layers.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
_SIZES |= {"u64": 8, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(
    r"^\s+(?P<root>ROOT )?%(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|[a-z]\w*\[[\d,]*\](?:\{[^}]*\})?) "
    r"(?P<op>[\w\-]+)\((?P<rest>.*)$"
)
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_VIEWS = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all", "partition-id", "replica-id"}
_VIEWS |= {"optimization-barrier"}
_PARTIAL = {"gather", "dynamic-slice", "slice"}
_OURS = "mosaic_gpu"
_WHOLE = "/mlp/"
"""In the name of a kernel of ours that reads all of its operands."""


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        """Of what it produces."""
        return type_bytes(self.type)

    def called(self, kind: str) -> str | None:
        """Name of the computation it calls as `calls`, `body`, `condition` or `to_apply`."""
        found = re.search(kind + r"=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None

    @property
    def target(self) -> str:
        """Of a custom call."""
        found = re.search(r'custom_call_target="([^"]+)"', self.attributes)
        return found[1] if found else ""

    @property
    def trips(self) -> int | None:
        """Of a loop, where the compiler knows them."""
        found = re.search(r'known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else None


@dataclass
class Report:
    """What one run of a program does, loops with known ends counted as often as they run."""

    kernels: int = 0
    bytes: int = 0
    """Moved by XLA's kernels."""
    unknown_loops: int = 0
    """Loops whose end depends on values: the host reads their condition on every trip."""
    conditionals: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Report, times: int = 1) -> None:
        """Take up a called computation."""
        self.kernels += times * other.kernels
        self.bytes += times * other.bytes
        self.unknown_loops += other.unknown_loops
        self.conditionals += other.conditionals
        self.kinds.update({kind: times * count for kind, count in other.kinds.items()})


def type_bytes(text: str) -> int:
    """Bytes of all arrays of a type."""
    total = 0
    for dtype, dimensions in _ARRAY.findall(text):
        size = _SIZES.get(dtype, 0)
        for dimension in filter(None, dimensions.split(",")):
            size *= int(dimension)
        total += size
    return total


class Program:
    """A parsed module."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] | None = None
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                current = self.computations.setdefault(header[2], [])
                self.entry = header[2] if header[1] else self.entry
            elif line.startswith("}"):
                current = None
            elif current is not None and (found := _INSTRUCTION.match(line)):
                current.append(_instruction(found))

    def report(self, name: str | None = None) -> Report:
        """Of a computation, by default of the whole program."""
        report, lines = Report(), self.computations[name or self.entry]
        types = {line.name: line for line in lines}
        for line in lines:
            if line.op == "while":
                self._loop(report, line)
            elif line.op == "conditional":
                report.conditionals += 1
            elif line.op == "call":
                report.add(self.report(line.called("to_apply")))
            elif line.op not in _VIEWS:
                report.kernels += 1
                report.kinds[self._kind(line)] += 1
                report.bytes += self._written(line) + self._read(line, types)
        return report

    def _kind(self, line: Instruction) -> str:
        """Its custom call's target, also where a fusion only brings the operands of one; else what it is."""
        inner = self.computations.get(line.called("calls") or "", []) if line.op == "fusion" else []
        return next((part.target for part in (line, *inner) if part.target), line.op)

    def _loop(self, report: Report, line: Instruction) -> None:
        report.unknown_loops += line.trips is None
        report.add(self.report(line.called("body")), line.trips or 1)

    def _read(self, line: Instruction, types: dict[str, Instruction]) -> int:
        if _OURS in self._kind(line) and _WHOLE not in line.attributes:
            return 0
        sizes = [types[name].bytes if name in types else 0 for name in line.operands]
        if line.op == "fusion":
            called = line.called("calls") or ""
            return sum(self._fusion_reads(called, place, size) for place, size in enumerate(sizes))
        if line.op in _PARTIAL:
            return line.bytes + sum(sizes[1:])
        return sum(sizes)

    def _fusion_reads(self, computation: str, place: int, whole: int) -> int:
        """Bytes of its operand `place` that a fusion reads."""
        lines = self.computations.get(computation, [])
        names = {line.name for line in lines if line.op == "parameter" and line.arguments.strip() == str(place)}
        if not names:
            return whole
        read = 0
        for line in lines:
            if names.isdisjoint(line.operands):
                continue
            if line.op in ("bitcast", "reshape"):
                names.add(line.name)
            elif line.op in _PARTIAL and line.operands[0] in names:
                read += line.bytes
            elif not (line.op in ("dynamic-update-slice", "scatter") and line.operands[0] in names):
                return whole
        return min(read, whole)

    def _written(self, line: Instruction) -> int:
        """An update in place writes what is new."""
        lines = self.computations.get(line.called("calls") or "", []) if line.op == "fusion" else []
        named = {inner.name: inner for inner in lines}
        root = next((inner for inner in lines if inner.root), line)
        while root.op == "bitcast":
            root = named[root.operands[0]]
        update = {"dynamic-update-slice": 1, "scatter": 2}.get(root.op)
        return line.bytes if update is None else named[root.operands[update]].bytes if lines else 0


def _instruction(found: re.Match[str]) -> Instruction:
    rest, depths = found["rest"], accumulate({"(": 1, ")": -1}.get(letter, 0) for letter in found["rest"])
    end = next((place for place, depth in enumerate(depths) if depth < 0), len(rest) - 1)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    name, kind = found["name"], found["type"]
    return Instruction(name, kind, found["op"], operands, rest[:end], rest[end + 1 :], bool(found["root"]))
