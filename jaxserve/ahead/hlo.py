"""Reads the text of an optimised XLA program: computations, instructions, shapes with the memory they live in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

_BITS = {
    "pred": 8,
    "c64": 64,
    "c128": 128,
    "s2": 2,
    "u2": 2,
    "token": 0,
    "opaque": 0,
}
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_NAME = re.compile(r"^\s*(ROOT )?%([\w.\-]+) = ")
_OPERAND = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Shape:
    """One array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]
    space: int
    """Memory space: 0 = HBM, 1 = VMEM, others are smaller memories."""

    @property
    def bytes(self) -> int:
        """Without padding."""
        return -(-prod(self.dims) * _width(self.dtype) // 8)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


def _width(dtype: str) -> int:
    """Bits of a number: f8e4m3fn has 8, s4 has 4."""
    if dtype in _BITS:
        return _BITS[dtype]
    found = re.match(r"(?:bf|[sufc])(\d+)", dtype)
    return int(found.group(1)) if found else 0


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    """The arrays of its result, flat."""
    operands: tuple[str, ...]
    """Names of instructions of the same computation."""
    literal: str
    """What stands between its parentheses."""
    attributes: str
    root: bool

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute such as `body` or `calls` names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else None

    @cached_property
    def source(self) -> str:
        """Where it comes from in the traced program (`op_name`)."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    @cached_property
    def cycles(self) -> int:
        """libtpu's estimate for one execution, 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found.group(1)) if found else 0

    @property
    def bytes(self) -> int:
        """Of its results, wherever they live."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def hbm_bytes(self) -> int:
        """Of its results that live in HBM."""
        return sum(shape.bytes for shape in self.shapes if shape.space == 0)


Computation = Mapping[str, Instruction]


@dataclass(frozen=True)
class Program:
    """A compiled module."""

    computations: Mapping[str, Computation]
    entry: str

    def root(self, computation: str) -> Instruction:
        """What a computation returns."""
        return next(one for one in self.computations[computation].values() if one.root)

    def instructions(self) -> Iterator[Instruction]:
        """Of all computations."""
        for computation in self.computations.values():
            yield from computation.values()


def parse(text: str) -> Program:
    """The program of `compiled.as_text()`.

    Raises:
        ValueError: there is no entry computation in it.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    current, entry = None, None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no entry computation: not an optimised HLO module")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    start = _NAME.match(line)
    if not start:
        return None
    rest = line[start.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    opened = re.match(r"([\w\-]+)\(", rest)
    if not opened:
        return None
    closed = _closing(rest, opened.end() - 1)
    literal = rest[opened.end() : closed]
    return Instruction(
        start.group(2),
        opened.group(1),
        tuple(_shapes(result)),
        tuple(_OPERAND.findall(literal)),
        literal,
        rest[closed + 1 :],
        start.group(1) is not None,
    )


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at `opening` closes."""
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _SHAPE.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        yield Shape(dtype, sizes, int(space.group(1)) if space else 0)
