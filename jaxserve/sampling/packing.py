"""A row's knobs as int32 columns: packed with NumPy on the host, unpacked into `RowInputs` on the device, and back.

A step's rows are one int32 array [R, NUM_COLUMNS]; floats keep their bits. An all-zero row is inactive. What the step
returns is one int32 array [R, OUT_COLUMNS], so that one copy brings everything to the host.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from jaxserve.sampling.params import MAX_LOGIT_BIAS, SamplingParams

Int32 = npt.NDArray[np.int32]

MAX_TOP_LOGPROBS = 5
"""Alternatives returned beside a chosen token."""
HISTORY_CHUNK = 512
"""Tokens one `write_history` call loads."""
HISTORY_COLUMNS = HISTORY_CHUNK + 3
BIAS_COLUMNS = 2 * MAX_LOGIT_BIAS + 1


class Column(enum.IntEnum):
    """Columns of a row."""

    SLOT = 0
    FLAGS = 1
    POSITION = 2
    FORCED = 3  # token id + 1; 0 = none
    MU = 4
    CHOICE = 5
    SEED_HIGH = 6
    SEED_LOW = 7
    INVERSE_TEMPERATURE = 8
    TOP_K = 9
    TOP_P = 10
    TYPICAL_P = 11
    LOG_MIN_P = 12
    REPETITION = 13
    FREQUENCY = 14
    PRESENCE = 15
    TAU = 16
    LEARNING_RATE = 17


NUM_COLUMNS = 20
"""C: columns of a row (two are spare)."""


class Flag(enum.IntFlag):
    """Bits of a row's FLAGS column."""

    ACTIVE = 1
    FRESH = 2
    GREEDY = 4
    MIROSTAT = 8
    BIAS = 16
    PENALTIES = 32
    GRAMMAR = 64
    LOGPROBS = 128
    TOP_P = 256
    TYPICAL_P = 512


class RowInputs(NamedTuple):
    """What the device reads of R rows: arrays [R]. Neutral values stand where a knob is off."""

    slot: jax.Array
    token: jax.Array
    position: jax.Array
    forced: jax.Array
    """int32: the token to emit whatever the knobs say, -1 = none."""
    mu: jax.Array
    """float32: start value, used where `fresh`."""
    choice: jax.Array
    seed: jax.Array
    """uint32 [R, 2]: high and low word."""
    inverse_temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    """uint32: in units of 2^-32; meaningful where `uses_top_p`."""
    typical_p: jax.Array
    log_min_p: jax.Array
    """float32: natural logarithm of min_p, -inf = off."""
    repetition: jax.Array
    frequency: jax.Array
    presence: jax.Array
    tau: jax.Array
    """float32: mirostat's target surprise in bits."""
    learning_rate: jax.Array
    active: jax.Array
    fresh: jax.Array
    greedy: jax.Array
    mirostat: jax.Array
    biased: jax.Array
    penalized: jax.Array
    constrained: jax.Array
    wants_logprobs: jax.Array
    uses_top_p: jax.Array
    uses_typical_p: jax.Array


class RowOutput(NamedTuple):
    """One row's result on the host."""

    token: int
    failed: bool
    """No token was left to draw from."""
    logprob: float
    """Natural log-probability under the raw model; NaN unless the row asked for log-probabilities."""
    sampling_logprob: float
    """Natural log-probability under the distribution the token was drawn from."""
    mu: float
    """mirostat's bound after this step."""
    top: tuple[tuple[int, float], ...]
    """(token id, raw log-probability), most likely first."""


OUT_COLUMNS = 5 + 2 * MAX_TOP_LOGPROBS


def uses_penalties(params: SamplingParams) -> bool:
    """Whether a sequence needs its token counts (`write_history`) on the device."""
    return params.repetition_penalty != 1.0 or params.frequency_penalty != 0.0 or params.presence_penalty != 0.0


def pack_params(params: SamplingParams, choice: int, want_logprobs: bool) -> Int32:
    """The part of a row that stays the same over a sequence's life: int32 [NUM_COLUMNS], made once per sequence."""
    row = np.zeros(NUM_COLUMNS, np.int32)
    bits, reals = row.view(np.uint32), row.view(np.float32)
    bits[Column.CHOICE] = choice
    bits[Column.SEED_HIGH] = (params.seed >> 32) & 0xFFFFFFFF
    bits[Column.SEED_LOW] = params.seed & 0xFFFFFFFF
    # Below 1e-30 the draw is an argmax with fair ties; the bound keeps the inverse finite.
    reals[Column.INVERSE_TEMPERATURE] = 1.0 / max(params.temperature, 1e-30) if params.temperature else 1.0
    reals[Column.LOG_MIN_P] = -math.inf
    reals[Column.REPETITION] = max(params.repetition_penalty, 0.01)
    reals[Column.FREQUENCY] = params.frequency_penalty
    reals[Column.PRESENCE] = params.presence_penalty
    flags = Flag.ACTIVE | (Flag.GREEDY if params.temperature == 0 else Flag(0))
    flags |= Flag.BIAS if params.logit_bias else Flag(0)
    flags |= Flag.PENALTIES if uses_penalties(params) else Flag(0)
    flags |= Flag.LOGPROBS if want_logprobs else Flag(0)
    if params.mirostat_target is not None:
        tau = math.log2(params.mirostat_target)
        reals[Column.TAU], reals[Column.MU] = tau, 2 * tau
        reals[Column.LEARNING_RATE] = params.mirostat_lr
        flags |= Flag.MIROSTAT
    else:
        flags |= _pack_truncations(row, params)
    row[Column.FLAGS] = flags
    return row


def _pack_truncations(row: Int32, params: SamplingParams) -> Flag:
    bits = row.view(np.uint32)
    row[Column.TOP_K] = params.top_k
    bits[Column.TOP_P] = min(round(params.top_p * 2**32), 2**32 - 1)
    bits[Column.TYPICAL_P] = min(round(params.typical_p * 2**32), 2**32 - 1)
    if params.min_p > 0:
        row.view(np.float32)[Column.LOG_MIN_P] = math.log(params.min_p)
    top_p = Flag.TOP_P if params.top_p < 1 else Flag(0)
    return top_p | (Flag.TYPICAL_P if params.typical_p < 1 else Flag(0))


def pack_row(
    out_row: Int32,
    constant: Int32,
    slot: int,
    position: int,
    *,
    token: int = 0,
    last: bool = True,
    fresh: bool = False,
    grammar: bool = False,
    forced: int = -1,
    mu: float | None = None,
) -> None:
    """Write one row that samples in this step.

    Args:
        out_row: int32 [NUM_COLUMNS], overwritten.
        constant: from `pack_params`.
        slot: the sequence's slot.
        position: index of the output token drawn now (0 = first).
        fresh: first sampling row of this sequence in its slot; sets mirostat's mu.
        grammar: the row's bitmask applies.
        forced: token id to emit whatever the knobs say; -1 = none.
        mu: mu to resume from when fresh; None = the start value.
    """
    out_row[:] = constant
    out_row[18] = token
    out_row[:4] = (slot, int(constant[1]) | 2 * fresh | 64 * grammar, position, forced + 1)
    if mu is not None:
        out_row.view(np.float32)[Column.MU] = mu


def unpack_rows(rows_RC: jax.Array) -> RowInputs:
    """Columns of int32 [R, NUM_COLUMNS] as typed arrays [R]."""

    def real(column: Column) -> jax.Array:
        return lax.bitcast_convert_type(rows_RC[:, column], jnp.float32)

    def word(column: Column) -> jax.Array:
        return lax.bitcast_convert_type(rows_RC[:, column], jnp.uint32)

    def has(flag: Flag) -> jax.Array:
        return (rows_RC[:, Column.FLAGS] & flag.value) != 0

    active = has(Flag.ACTIVE)
    return RowInputs(
        slot=rows_RC[:, Column.SLOT],
        token=rows_RC[:, 18],
        position=rows_RC[:, Column.POSITION],
        forced=rows_RC[:, Column.FORCED] - 1,
        mu=real(Column.MU),
        choice=rows_RC[:, Column.CHOICE],
        seed=jnp.stack([word(Column.SEED_HIGH), word(Column.SEED_LOW)], axis=-1),
        inverse_temperature=real(Column.INVERSE_TEMPERATURE),
        top_k=rows_RC[:, Column.TOP_K],
        top_p=word(Column.TOP_P),
        typical_p=word(Column.TYPICAL_P),
        log_min_p=real(Column.LOG_MIN_P),
        repetition=real(Column.REPETITION),
        frequency=real(Column.FREQUENCY),
        presence=real(Column.PRESENCE),
        tau=real(Column.TAU),
        learning_rate=real(Column.LEARNING_RATE),
        active=active,
        fresh=has(Flag.FRESH),
        greedy=has(Flag.GREEDY) | ~active,
        mirostat=has(Flag.MIROSTAT),
        biased=has(Flag.BIAS),
        penalized=has(Flag.PENALTIES),
        constrained=has(Flag.GRAMMAR),
        wants_logprobs=has(Flag.LOGPROBS),
        uses_top_p=has(Flag.TOP_P),
        uses_typical_p=has(Flag.TYPICAL_P),
    )


def unpack_out(out: Int32, row: int, num_logprobs: int) -> RowOutput:
    """One row of what `sample` returned (int32 [R, OUT_COLUMNS], on the host), with `num_logprobs` alternatives."""
    words = out[row]
    reals = words.view(np.float32)
    ids, logprobs = words[5 : 5 + num_logprobs], reals[5 + MAX_TOP_LOGPROBS :]
    top = tuple((int(i), float(p)) for i, p in zip(ids, logprobs, strict=False))
    return RowOutput(int(words[0]), bool(words[1]), float(reals[2]), float(reals[3]), float(reals[4]), top)


def pack_history(slot: int, prompt: npt.ArrayLike, output: npt.ArrayLike = ()) -> list[Int32]:
    """Token ids of a penalised sequence for `write_history`: int32 [HISTORY_COLUMNS] each, to be loaded in order.

    The first clears the slot's counts. `output` holds the tokens already drawn (a resumed sequence).
    """
    packed = [_pack_chunk(slot, True, ids) for ids in _chunks(prompt)]
    packed += [_pack_chunk(slot, False, ids) for ids in _chunks(output)]
    packed = packed or [_pack_chunk(slot, False, np.empty(0, np.int32))]
    packed[0][2] = 1  # clears
    return packed


def _chunks(tokens: npt.ArrayLike) -> list[Int32]:
    ids = np.asarray(tokens, np.int32)
    return [ids[start : start + HISTORY_CHUNK] for start in range(0, len(ids), HISTORY_CHUNK)]


def _pack_chunk(slot: int, is_prompt: bool, ids: Int32) -> Int32:
    packed = np.full(HISTORY_COLUMNS, -1, np.int32)
    packed[:3] = (slot, is_prompt, 0)
    packed[3 : 3 + len(ids)] = ids
    return packed


def pack_bias(slot: int, params: SamplingParams) -> Int32:
    """A slot's `logit_bias` for `write_bias`: int32 [BIAS_COLUMNS]. A bias of -100 bans the token."""
    packed = np.full(BIAS_COLUMNS, -1, np.int32)
    packed[0] = slot
    values = packed.view(np.float32)[1 + MAX_LOGIT_BIAS :]
    values[:] = 0.0
    for index, (token, bias) in enumerate(params.logit_bias):
        packed[1 + index] = token
        values[index] = -math.inf if bias <= -100 else bias
    return packed
