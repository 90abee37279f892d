"""Runs the compiled stage on rows described for the oracle."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sampling_oracle import Row

from jaxserve.sampling.columns import NUM_COLUMNS
from jaxserve.sampling.packing import (
    RowOutput,
    pack_bias,
    pack_history,
    pack_params,
    pack_row,
    unpack_out,
    unpack_tokens,
)
from jaxserve.sampling.params import SamplingParams
from jaxserve.sampling.pipeline import sample, write_bias, write_history
from jaxserve.sampling.state import SlotState, init_state

Words = np.ndarray[Any, np.dtype[np.int32]]

step = jax.jit(sample)
_history = jax.jit(write_history, donate_argnums=0)
_bias = jax.jit(write_bias, donate_argnums=0)


def params_of(row: Row) -> SamplingParams:
    """The knobs of a row."""
    return SamplingParams(**{f.name: getattr(row, f.name) for f in fields(SamplingParams)})


@functools.cache
def empty_state(num_slots: int, vocab: int) -> SlotState:
    """A fresh state (not donated by `step`, so it can be shared)."""
    return init_state(num_slots, vocab)


def load(state: SlotState, slot: int, row: Row) -> SlotState:
    """What the engine does when a sequence enters a slot."""
    state = jax.tree.map(jnp.copy, state)
    if params_of(row).uses_penalties:
        for packed in pack_history(slot, row.prompt, row.output):
            state = _history(state, packed)
    if row.logit_bias:
        state = _bias(state, pack_bias(slot, params_of(row)))
    return state


def pack_mask(allowed: np.ndarray[Any, Any]) -> Words:
    """bool [V] as words, token i in bit i % 32 of word i // 32."""
    bits = np.zeros(-(-len(allowed) // 32) * 32, np.uint8)
    bits[: len(allowed)] = allowed
    return np.packbits(bits, bitorder="little").view(np.int32)


def pack(rows: list[Row | None], slots: list[int], num_rows: int, vocab: int) -> tuple[Words, Words]:
    """Packed rows and bitmask; None is an inactive row."""
    packed = np.zeros((num_rows, NUM_COLUMNS), np.int32)
    mask = np.zeros((num_rows, -(-vocab // 32)), np.int32)
    for index, (row, slot) in enumerate(zip(rows, slots, strict=True)):
        if row is None:
            continue
        constant = pack_params(params_of(row), row.choice, True)
        grammar = row.allowed is not None
        pack_row(packed[index], constant, slot, row.position, token=index, fresh=True, grammar=grammar, mu=row.mu)
        if row.allowed is not None:
            mask[index] = pack_mask(row.allowed)
    return packed, mask


def run(
    logits: np.ndarray[Any, Any], rows: list[Row | None], slots: list[int] | None = None, num_slots: int = 64
) -> tuple[SlotState, Words]:
    """One step of the compiled stage over fresh slots: state after it and the packed results."""
    slots = list(range(len(rows))) if slots is None else slots
    state = empty_state(num_slots, logits.shape[1])
    for row, slot in zip(rows, slots, strict=True):
        if row is not None and (row.logit_bias or params_of(row).uses_penalties):
            state = load(state, slot, row)
    packed, mask = pack(rows, slots, len(logits), logits.shape[1])
    state, out = step(state, logits, packed, mask)
    return state, np.asarray(out)


def outputs(out: Words, num_logprobs: int = 5) -> list[RowOutput]:
    """All rows unpacked."""
    rows = [unpack_out(out, row, num_logprobs) for row in range(len(out))]
    assert unpack_tokens(out) == ([row.token for row in rows], [row.failed for row in rows])
    return rows
