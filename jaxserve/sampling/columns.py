"""The table of a sample's columns: what travels to the device with every sample, declared once.

A line of `RowInputs` is a column: its name, its kind (the shape and type the device sees), and where its value comes
from. `packing.py` writes and reads all of them from this table alone. A column's neutral value is the one it gets from
neutral `SamplingParams`.
"""

# Annotations are the table, so they are evaluated here: no `from __future__ import annotations`.
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from jaxserve.sampling.params import SamplingParams
from jaxserve.sampling.records import Record, num_words

Integers = Int32[Array, " N"]
Fractions = UInt32[Array, " N"]
"""In units of 2^-32."""
Words = UInt32[Array, "N 2"]
"""A 64-bit integer: high and low word."""
Reals = Float32[Array, " N"]
Flags = Bool[Array, " N"]
"""One bit each; all share the column `flags`."""

_KINDS: dict[Any, Any] = {Integers: np.int32, Fractions: np.uint32, Words: (np.uint32, (2,)), Reals: np.float32}


@dataclass(frozen=True)
class Column:
    """Where a column's value comes from."""

    of: Callable[[SamplingParams], Any] | None = None
    """From the knobs; None: an argument of `pack_params` or `pack_row`, by name."""


_GIVEN = Column()
_of = Column


class RowInputs(NamedTuple):
    """What the device reads of N samples. Neutral values stand where a knob is off; an unused sample is all zero."""

    slot: Annotated[Integers, _GIVEN]
    position: Annotated[Integers, _GIVEN]
    """Index of the output token drawn (0 = first)."""
    token: Annotated[Integers, _GIVEN]
    """Index of the packed token whose hidden state gives this sample's logits."""
    draft: Annotated[Integers, _GIVEN]
    """What this sample must draw for the row's next sample to count; -1 = nothing follows."""
    offset: Annotated[Integers, _GIVEN]
    """Samples of its row before it, which lie right before it in N."""
    choice: Annotated[Integers, _GIVEN]
    active: Annotated[Flags, _GIVEN]
    last: Annotated[Flags, _GIVEN]
    """The last sample of its row in this step."""
    fresh: Annotated[Flags, _GIVEN]
    """First step of the sequence in its slot: mu starts at `mu`."""
    constrained: Annotated[Flags, _GIVEN]
    """The sample's bitmask applies."""
    wants_logprobs: Annotated[Flags, _GIVEN]
    seed: Annotated[Words, _of(lambda p: (p.seed >> 32 & 0xFFFFFFFF, p.seed & 0xFFFFFFFF))]
    draws: Annotated[Flags, _of(lambda p: p.temperature > 0)]
    """False: the most likely token is taken."""
    # Below 1e-30 the draw is an argmax with fair ties; the bound keeps the inverse finite.
    inverse_temperature: Annotated[Reals, _of(lambda p: 1.0 / max(p.temperature, 1e-30) if p.temperature else 1.0)]
    truncates: Annotated[Flags, _of(lambda p: p.truncates)]
    """Some truncation or mirostat is on."""
    top_k: Annotated[Integers, _of(lambda p: p.top_k)]
    uses_top_p: Annotated[Flags, _of(lambda p: p.top_p < 1)]
    top_p: Annotated[Fractions, _of(lambda p: _fraction(p.top_p))]
    uses_typical_p: Annotated[Flags, _of(lambda p: p.typical_p < 1)]
    typical_p: Annotated[Fractions, _of(lambda p: _fraction(p.typical_p))]
    log_min_p: Annotated[Reals, _of(lambda p: math.log(p.min_p) if p.min_p > 0 else -math.inf)]
    penalized: Annotated[Flags, _of(lambda p: p.uses_penalties)]
    repetition: Annotated[Reals, _of(lambda p: max(p.repetition_penalty, 0.01))]
    frequency: Annotated[Reals, _of(lambda p: p.frequency_penalty)]
    presence: Annotated[Reals, _of(lambda p: p.presence_penalty)]
    biased: Annotated[Flags, _of(lambda p: bool(p.logit_bias))]
    mirostat: Annotated[Flags, _of(lambda p: p.mirostat_target is not None)]
    tau: Annotated[Reals, _of(lambda p: math.log2(p.mirostat_target or 1))]
    """mirostat's target surprise in bits."""
    learning_rate: Annotated[Reals, _of(lambda p: p.mirostat_lr)]
    mu: Annotated[Reals, _of(lambda p: 2 * math.log2(p.mirostat_target or 1))]
    """Start value of mirostat's bound, used where `fresh`."""


def _fraction(x: float) -> int:
    return min(round(x * 2**32), 2**32 - 1)


def _table() -> Iterator[tuple[str, Any, Column]]:
    for name, hint in get_type_hints(RowInputs, include_extras=True).items():
        kind, column = get_args(hint)
        yield name, kind, column


COLUMNS: dict[str, Column] = {name: column for name, _, column in _table()}
"""All columns in order."""
BITS: dict[str, int] = {name: 1 << bit for bit, name in enumerate(name for name, kind, _ in _table() if kind is Flags)}
"""The bit of each flag in `flags`."""
SAMPLE: Record = np.dtype(
    [("flags", np.int32), *((name, _KINDS[kind]) for name, kind, _ in _table() if kind is not Flags)]
)
"""A sample's columns on the host: a view of its words gives them by name."""
NUM_COLUMNS = num_words(SAMPLE)
"""C: int32 words of a sample."""
