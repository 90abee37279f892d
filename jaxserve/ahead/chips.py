"""What the makers publish about their chips: memory, bandwidth, products, links."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jaxserve.errors import ModelLoadError

GIB = 1 << 30
HERE = "here"
"""Instead of a topology: the devices of this machine."""


@dataclass(frozen=True)
class Chip:
    """One device as jax sees it: a chip, or one of the two cores of a tpu7x chip."""

    name: str
    platform: str
    memory: int
    """Bytes of HBM."""
    bandwidth: float
    """Bytes of HBM per second."""
    flops: float
    """bfloat16 operations per second."""
    links: float
    """Bytes per second to all neighbours together, one way."""
    clock: float
    """Cycles per second of the cores, for libtpu's estimates; 0 where there are none."""
    dims: int = 2
    """Of the torus; 0 = every device reaches every other."""
    cores: int = 1
    """Devices of jax for each chip of a topology's name."""


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "tpu", 32 * GIB, 1228e9, 275e12, 300e9, 1.05e9, dims=3),
        Chip("v5e", "tpu", 16 * GIB, 819e9, 197e12, 200e9, 1.5e9),
        Chip("v5p", "tpu", 95 * GIB, 2765e9, 459e12, 600e9, 1.75e9, dims=3),
        Chip("v6e", "tpu", 32 * GIB, 1640e9, 918e12, 400e9, 1.75e9),
        Chip("tpu7x", "tpu", 96 * GIB, 3690e9, 1153e12, 600e9, 2.0e9, dims=3, cores=2),
        Chip("h100", "gpu", 80 * GIB, 3350e9, 989e12, 450e9, 0.0, dims=0),
        Chip("h200", "gpu", 141 * 10**9, 4800e9, 989e12, 450e9, 0.0, dims=0),
    )
}
"""Sources: Google Cloud's pages of TPU versions, NVIDIA's data sheets (SXM)."""


@dataclass(frozen=True)
class Topology:
    """Some chips that are wired together, named as `v5e:2x4`, `v5p:2x2x4`, `h100:8`."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def devices(self) -> int:
        """As jax counts them."""
        count = self.chip.cores
        for size in self.shape:
            count *= size
        return count

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str) -> Topology:
    """The topology of this name; one chip where only the chip is named.

    Raises:
        ModelLoadError: no such chip, or a shape that its chips are not wired in.
    """
    found = re.fullmatch(r"([a-z]\w*?)(?::(\d+(?:x\d+)*))?", text.strip().lower())
    chip = CHIPS.get(found.group(1)) if found else None
    if found is None or chip is None:
        raise ModelLoadError(f"--topology {text} is unknown; chips are {', '.join(CHIPS)}, as in v5e:2x4 or h100:8")
    shape = tuple(map(int, found.group(2).split("x"))) if found.group(2) else (1,)
    if min(shape) < 1 or (len(shape) not in (1, max(chip.dims, 1))):
        example = {0: "8", 2: "2x4", 3: "2x2x1"}[chip.dims]
        raise ModelLoadError(f"--topology {text}: {chip.name} is written like {chip.name}:{example}")
    return Topology(chip, shape)
