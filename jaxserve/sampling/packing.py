"""What travels between host and device: samples and histories to it, results back. NumPy on the host.

A step's samples are one int32 array [N, NUM_COLUMNS] (`columns.py` declares the columns); an all-zero sample is
inactive. What the step returns is one int32 array [N, OUT_COLUMNS], so that one copy brings everything to the host.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Int32

from jaxserve.sampling.columns import BITS, COLUMNS, NUM_COLUMNS, SAMPLE, RowInputs
from jaxserve.sampling.params import MAX_LOGIT_BIAS, SamplingParams
from jaxserve.sampling.records import Record, num_words, unpack

Int32Array = npt.NDArray[np.int32]

MAX_TOP_LOGPROBS = 5
"""Alternatives returned beside a chosen token."""
HISTORY_CHUNK = 512
"""Tokens one `write_history` call loads."""

OUT: Record = np.dtype(
    [
        ("token", np.int32),
        ("failed", np.int32),
        ("logprob", np.float32),
        ("sampling_logprob", np.float32),
        ("mu", np.float32),
        ("top_ids", np.int32, MAX_TOP_LOGPROBS),
        ("top_logprobs", np.float32, MAX_TOP_LOGPROBS),
    ]
)
"""A sample's result; see `RowOutput`."""
OUT_COLUMNS = num_words(OUT)
HISTORY: Record = np.dtype(
    [("slot", np.int32), ("in_prompt", np.int32), ("clear", np.int32), ("tokens", np.int32, HISTORY_CHUNK)]
)
"""Some tokens of a slot's history, -1 = none; with `clear` its counts are emptied first."""
HISTORY_COLUMNS = num_words(HISTORY)
BIAS: Record = np.dtype([("slot", np.int32), ("ids", np.int32, MAX_LOGIT_BIAS), ("values", np.float32, MAX_LOGIT_BIAS)])
"""A slot's logit bias; id -1 = none."""
BIAS_COLUMNS = num_words(BIAS)


class RowOutput(NamedTuple):
    """One sample's result on the host."""

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


def pack_params(params: SamplingParams, choice: int, want_logprobs: bool) -> Int32Array:
    """The part of a sample that stays the same over a sequence's life: int32 [NUM_COLUMNS], made once per sequence."""
    effective = params.effective()
    values = {name: column.of(effective) for name, column in COLUMNS.items() if column.of is not None}
    values |= {"active": True, "choice": choice, "wants_logprobs": want_logprobs}
    row = np.zeros(NUM_COLUMNS, np.int32)
    _write(row.view(SAMPLE)[0], values)
    return row


def _write(sample: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if name not in BITS:
            sample[name] = value
    sample["flags"] |= sum(BITS[name] for name, value in values.items() if name in BITS and value)


def pack_row(
    out_row: Int32Array,
    constant: Int32Array,
    slot: int,
    position: int,
    *,
    token: int,
    offset: int = 0,
    draft: int | None = None,
    fresh: bool = False,
    grammar: bool = False,
    mu: float | None = None,
) -> None:
    """Write one sample. A row with drafts has one for each of them and one more, side by side (`drafts.py`).

    Args:
        out_row: int32 [NUM_COLUMNS], overwritten.
        constant: from `pack_params`.
        slot: the sequence's slot.
        position: index of the output token drawn now (0 = first).
        token: index, among the step's packed tokens, of the one whose hidden state gives the logits.
        offset: samples of its row before it.
        draft: what it must draw for the next sample of its row to count; None = it is the row's last.
        fresh: first step of this sequence in its slot; sets mirostat's mu.
        grammar: the sample's bitmask applies.
        mu: mu to resume from when fresh; None = the start value.
    """
    out_row[:] = constant
    out_row[_SLOT], out_row[_POSITION], out_row[_TOKEN] = slot, position, token
    out_row[_OFFSET], out_row[_DRAFT] = offset, -1 if draft is None else draft
    out_row[_FLAGS] |= _LAST * (draft is None) | _FRESH * fresh | _CONSTRAINED * grammar
    if mu is not None:
        out_row.view(SAMPLE)["mu"] = mu


def _index(name: str, record: Record = SAMPLE) -> int:
    assert record.fields is not None
    return record.fields[name][1] // 4


_FLAGS, _SLOT, _POSITION, _TOKEN = map(_index, ("flags", "slot", "position", "token"))
_OUT_TOKEN, _OUT_FAILED = _index("token", OUT), _index("failed", OUT)
_OFFSET, _DRAFT = _index("offset"), _index("draft")
_LAST, _FRESH, _CONSTRAINED = BITS["last"], BITS["fresh"], BITS["constrained"]


def unpack_rows(samples_NC: Int32[Array, "N C"]) -> RowInputs:
    """Columns of int32 [N, NUM_COLUMNS] as typed arrays [N]."""
    columns = unpack(samples_NC, SAMPLE)
    flags = columns.pop("flags")
    return RowInputs(**columns, **{name: flags & bit != 0 for name, bit in BITS.items()})


def unpack_tokens(out: Int32Array) -> tuple[list[int], list[bool]]:
    """Of all rows of what `sample` returned: the tokens, and whether there was none to draw."""
    return out[:, _OUT_TOKEN].tolist(), (out[:, _OUT_FAILED] != 0).tolist()


def unpack_out(out: Int32Array, row: int, num_logprobs: int) -> RowOutput:
    """One row of what `sample` returned (int32 [N, OUT_COLUMNS], on the host), with `num_logprobs` alternatives."""
    found = out[row].view(OUT)[0]
    return RowOutput(
        int(found["token"]),
        bool(found["failed"]),
        float(found["logprob"]),
        float(found["sampling_logprob"]),
        float(found["mu"]),
        tuple(zip(*(found[name][:num_logprobs].tolist() for name in ("top_ids", "top_logprobs")), strict=True)),
    )


def pack_history(slot: int, prompt: npt.ArrayLike, output: npt.ArrayLike = ()) -> list[Int32Array]:
    """Token ids of a penalised sequence for `write_history`: int32 [HISTORY_COLUMNS] each, to be loaded in order.

    The first clears the slot's counts. `output` holds the tokens already drawn (a resumed sequence).
    """
    parts = [(True, ids) for ids in _chunks(prompt)] + [(False, ids) for ids in _chunks(output)]
    parts = parts or [(False, np.empty(0, np.int32))]
    return [_pack_chunk(slot, in_prompt, index == 0, ids) for index, (in_prompt, ids) in enumerate(parts)]


def _chunks(tokens: npt.ArrayLike) -> list[Int32Array]:
    ids = np.asarray(tokens, np.int32)
    return [ids[start : start + HISTORY_CHUNK] for start in range(0, len(ids), HISTORY_CHUNK)]


def _pack_chunk(slot: int, in_prompt: bool, clear: bool, ids: Int32Array) -> Int32Array:
    packed = np.full(HISTORY_COLUMNS, -1, np.int32)
    history = packed.view(HISTORY)[0]
    history["slot"], history["in_prompt"], history["clear"] = slot, in_prompt, clear
    history["tokens"][: len(ids)] = ids
    return packed


def pack_bias(slot: int, params: SamplingParams) -> Int32Array:
    """A slot's `logit_bias` for `write_bias`: int32 [BIAS_COLUMNS]. A bias of -100 bans the token."""
    packed = np.zeros(BIAS_COLUMNS, np.int32)
    record = packed.view(BIAS)[0]
    record["slot"], record["ids"] = slot, -1
    for index, (token, bias) in enumerate(params.logit_bias):
        record["ids"][index] = token
        record["values"][index] = -math.inf if bias <= -100 else bias
    return packed
