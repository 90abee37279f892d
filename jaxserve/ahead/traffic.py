"""What a compiled TPU program moves: bytes of HBM, libtpu's estimated cycles, collectives and copies, by operation.

XLA's own cost analysis counts a loop's body once and kernels as nothing. Here the optimised program is walked, loops
count as often as they turn, operands that live in VMEM count nothing, and slices, gathers and updates count what they
touch instead of the array they touch it in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from jaxserve.ahead.hlo import Computation, Instruction, Program

_FREE = frozenset(
    (
        *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"),
        *("opt-barrier", "iota", "domain", "copy-done", "slice-done", "dynamic-slice-done", "all-gather-done"),
        *("all-reduce-done", "async-done", "async-update", "collective-permute-done", "send-done", "recv-done"),
    )
)
_SLICES = ("dynamic-slice", "slice", "gather")
_STARTS = ("slice-start", "async-start", "dynamic-slice-start")
_COLLECTIVES = ("all-", "reduce-scatter", "collective", "ragged-all-to-all")
_RELABELS = "output_to_operand_aliasing={{}: (0"
"""Of a fusion inside another: the same memory in another tiling."""
COPIES = ("copy", "copy-start", "transpose")


@dataclass(frozen=True)
class Operation:
    """What one instruction does over the whole program."""

    opcode: str
    source: str
    """Where it comes from in the traced program."""
    result: str
    times: float
    """How often it runs."""
    hbm_bytes: float
    """Over all its runs."""
    cycles: float
    """libtpu's estimate, over all its runs; 0 where it gives none."""
    largest: int
    """Bytes of its largest result in HBM."""
    bytes: int
    """Of all its results, wherever they live, in one run."""
    kernel: str = ""
    """Name, of a kernel of our own."""

    @property
    def collective(self) -> bool:
        """Whether chips wait for each other here."""
        return self.opcode.startswith(_COLLECTIVES)


@dataclass(frozen=True)
class Traffic:
    """All that a program does that costs."""

    operations: tuple[Operation, ...]
    unknown_loops: tuple[str, ...]
    """Sources of loops whose number of turns the program does not say; they count once."""

    @cached_property
    def hbm_bytes(self) -> float:
        """Read and written, kernels apart."""
        return sum(one.hbm_bytes for one in self.operations)

    @cached_property
    def cycles(self) -> float:
        """libtpu's estimates, kernels apart."""
        return sum(one.cycles for one in self.operations)

    @property
    def collectives(self) -> tuple[Operation, ...]:
        """Those between chips."""
        return tuple(one for one in self.operations if one.collective)

    def kernel_calls(self) -> dict[str, float]:
        """How often each kernel of our own runs."""
        calls: dict[str, float] = {}
        for one in self.operations:
            if one.kernel:
                calls[one.kernel] = calls.get(one.kernel, 0) + one.times
        return calls

    def copies(self, least: int) -> tuple[Operation, ...]:
        """Copies and transpositions in HBM whose result has at least so many bytes."""
        return tuple(one for one in self.operations if one.opcode in COPIES and one.largest >= least)

    def heaviest(self, count: int, by: Callable[[Operation], float] = lambda one: one.hbm_bytes) -> list[Operation]:
        """The operations that cost most, first."""
        return sorted(self.operations, key=by, reverse=True)[:count]


def measure(program: Program, loops: Mapping[str, float] | None = None) -> Traffic:
    """Walk a program.

    Args:
        program: of `hlo.parse`.
        loops: turns of loops that the program does not say, by a part of their source.
    """
    walk = _Walk(program, loops or {})
    walk.computation(program.entry, 1.0)
    return Traffic(tuple(walk.found), tuple(walk.unknown))


@dataclass
class _Walk:
    program: Program
    loops: Mapping[str, float]
    found: list[Operation] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def computation(self, name: str, times: float) -> None:
        computation = self.program.computations[name]
        for one in computation.values():
            if one.opcode == "while":
                self._loop(one, times)
            elif one.opcode == "conditional":
                self.computation(self._costliest(one), times)
            elif one.opcode == "call":
                self.computation(one.called("to_apply") or "", times)
            elif one.opcode not in _FREE:
                self._operation(one, computation, times)

    def _loop(self, loop: Instruction, times: float) -> None:
        turns: float | None = _turns(self.program, loop)
        if turns is None:
            turns = next((count for part, count in self.loops.items() if part in loop.source), None)
        if turns is None:
            self.unknown.append(loop.source)
        self.computation(loop.called("body") or "", times * (1 if turns is None else turns))

    def _costliest(self, branch: Instruction) -> str:
        """Of the computations of a conditional, that which moves most."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", branch.attributes)
        names = (
            re.findall(r"%?([\w.\-]+)", listed.group(1))
            if listed
            else [name for key in ("true_computation", "false_computation") if (name := branch.called(key))]
        )

        def cost(name: str) -> float:
            inner = _Walk(self.program, self.loops)
            inner.computation(name, 1.0)
            return sum(one.hbm_bytes + one.cycles for one in inner.found)

        return max(names, key=cost)

    def _operation(self, one: Instruction, computation: Computation, times: float) -> None:
        kernel = re.search(r'custom_call_target="tpu_custom_call"', one.attributes)
        moved = _moved(self.program, one, computation)
        name = one.name.split(".")[0] if kernel else ""
        largest = max((shape.bytes for shape in one.shapes if shape.space == 0), default=0)
        self.found.append(
            Operation(
                one.opcode,
                one.source,
                ", ".join(map(str, one.shapes[:3])),
                times,
                0.0 if kernel else moved * times,
                one.cycles * times,
                largest,
                one.bytes,
                name,
            )
        )


def _turns(program: Program, loop: Instruction) -> int | None:
    """How often a loop turns, where the program says it."""
    known = re.search(r'known_trip_count"?:\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known.group(1))
    condition = loop.called("condition")
    if condition is None:
        return None
    computation, root = program.computations[condition], program.root(condition)
    limits = [computation[name] for name in root.operands if name in computation]
    numbers = [int(one.literal) for one in limits if one.opcode == "constant" and re.fullmatch(r"-?\d+", one.literal)]
    return numbers[0] if numbers else None


def _moved(program: Program, one: Instruction, computation: Computation) -> float:
    """Bytes of HBM that one run reads and writes."""

    def operand(index: int) -> Instruction:
        return computation[one.operands[index]]

    out = one.hbm_bytes
    if one.opcode == "fusion":
        return _moved_by_fusion(program, one, computation)
    if one.opcode in _SLICES:
        return 2 * out or one.bytes
    if one.opcode == "dynamic-update-slice":
        return 2 * operand(1).bytes
    if one.opcode == "scatter":
        return 2 * operand(-1).bytes
    if one.opcode == "copy-start":
        return sum(shape.bytes for shape in one.shapes[:2] if shape.space == 0)
    if one.opcode in _STARTS:
        sizes = sorted(shape.bytes for shape in one.shapes if shape.bytes > 8)
        return sizes[-2] if len(sizes) > 1 else sum(sizes)
    return out + sum(computation[name].hbm_bytes for name in one.operands if name in computation)


def _moved_by_fusion(program: Program, one: Instruction, computation: Computation) -> float:
    inner = one.called("calls") or ""
    written = _written(program, inner)
    total = float(one.hbm_bytes if written is None else min(one.hbm_bytes, written))
    reads = _reads(program, inner)
    for index, name in enumerate(one.operands):
        if name in computation:
            whole, touched = computation[name].hbm_bytes, reads.get(index)
            total += whole if touched is None else min(whole, touched)
    return total


def _reads(program: Program, inner: str) -> dict[int, int | None]:
    """Bytes that a fused computation reads of each parameter; None = all of it."""
    computation = program.computations[inner]
    return {
        int(one.literal): _touched(program, computation, one.name)
        for one in computation.values()
        if one.opcode == "parameter"
    }


def _touched(program: Program, computation: Computation, name: str) -> int | None:
    total = 0
    for user in (one for one in computation.values() if name in one.operands):
        part = _touched_by(program, computation, user, name)
        if part is None:
            return None
        total += part
    return total


def _touched_by(program: Program, computation: Computation, user: Instruction, name: str) -> int | None:
    if user.opcode in _SLICES and user.operands[0] == name:
        return user.bytes
    if user.opcode in ("dynamic-update-slice", "scatter") and user.operands[0] == name:
        return 0
    if not user.root and (user.opcode == "bitcast" or _RELABELS in user.attributes):
        return _touched(program, computation, user.name)
    if user.opcode == "fusion":
        reads = _reads(program, user.called("calls") or "")
        parts = [reads.get(index) for index, operand in enumerate(user.operands) if operand == name]
        return None if None in parts else sum(part or 0 for part in parts)
    return None


def _written(program: Program, inner: str) -> int | None:
    """Bytes that a fused computation writes, where it updates a part of an array; None = its whole result."""
    computation = program.computations[inner]
    return _written_by(program, computation, program.root(inner))


def _written_by(program: Program, computation: Computation, one: Instruction) -> int | None:
    if one.opcode == "dynamic-update-slice":
        return computation[one.operands[1]].bytes
    if one.opcode == "scatter":
        return computation[one.operands[-1]].bytes
    if one.opcode == "bitcast" and one.operands:
        return _written_by(program, computation, computation[one.operands[0]])
    if one.opcode == "fusion":
        return _written(program, one.called("calls") or "")
    if one.opcode == "tuple":
        return _written_by_all(program, computation, (computation[name] for name in one.operands))
    return None


def _written_by_all(program: Program, computation: Computation, parts: Iterable[Instruction]) -> int:
    total = 0
    for part in parts:
        written = _written_by(program, computation, part)
        total += part.hbm_bytes if written is None else written
    return total
