"""Packing on the host: round trip and cost."""

from __future__ import annotations

import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve.sampling import packing
from jaxserve.sampling.columns import BITS, COLUMNS, NUM_COLUMNS, SAMPLE, RowInputs
from jaxserve.sampling.packing import pack_params, pack_row
from jaxserve.sampling.params import KNOBS, NEUTRAL, SamplingParams


def unpack_rows(packed: np.ndarray) -> RowInputs:
    return packing.unpack_rows(jnp.asarray(packed))


def test_knobs_survive_the_journey() -> None:
    params = SamplingParams(
        temperature=0.5, top_k=7, top_p=0.9, min_p=0.25, typical_p=0.5, frequency_penalty=-1.5, presence_penalty=0.5,
        repetition_penalty=0.0, seed=-2,
    )  # fmt: skip
    packed = np.zeros((2, NUM_COLUMNS), np.int32)
    pack_row(packed[0], pack_params(params, 3, True), 9, 41, token=77, fresh=True, grammar=True, mu=1.5)
    rows = unpack_rows(packed)
    assert [int(part[0]) for part in (rows.slot, rows.position, rows.token, rows.choice)] == [9, 41, 77, 3]
    assert [int(word) for word in rows.seed[0]] == [0xFFFFFFFF, 0xFFFFFFFE]
    assert float(rows.inverse_temperature[0]) == 2.0
    assert int(rows.top_k[0]) == 7
    assert int(rows.top_p[0]) == round(0.9 * 2**32)
    assert int(rows.typical_p[0]) == 2**31
    np.testing.assert_allclose(rows.log_min_p[0], np.log(0.25), rtol=1e-6)
    assert (float(rows.frequency[0]), float(rows.presence[0])) == (-1.5, 0.5)
    np.testing.assert_allclose(rows.repetition[0], 0.01, rtol=1e-6)
    assert float(rows.mu[0]) == 1.5
    assert {name for name in BITS if bool(getattr(rows, name)[0])} == set(BITS) - {"mirostat", "biased"}
    assert not any(bool(getattr(rows, name)[1]) for name in BITS)


def test_mirostat_replaces_the_truncations() -> None:
    params = SamplingParams(mirostat_target=8.0, mirostat_lr=0.25, top_k=5, top_p=0.5, min_p=0.5, typical_p=0.5)
    rows = unpack_rows(pack_params(params, 0, False)[None])
    assert bool(rows.mirostat[0])
    assert (float(rows.tau[0]), float(rows.mu[0]), float(rows.learning_rate[0])) == (3.0, 6.0, 0.25)
    assert int(rows.top_k[0]) == 0
    assert float(rows.log_min_p[0]) == -np.inf
    assert not bool(rows.uses_top_p[0]) | bool(rows.uses_typical_p[0])
    assert bool(rows.truncates[0])


def test_every_column_and_flag_is_unpacked_from_where_it_was_packed() -> None:
    """A value of its own in every column, every flag alone."""
    packed = np.arange(1, NUM_COLUMNS + 1, dtype=np.int32)[None].repeat(len(BITS), 0)
    packed.view(SAMPLE)["flags"][:, 0] = list(BITS.values())
    rows = unpack_rows(packed)
    assert rows._fields == tuple(COLUMNS)
    for index, name in enumerate(BITS):
        assert np.flatnonzero(getattr(rows, name)).tolist() == [index]
    words = [np.asarray(part).view(np.int32)[0] for name, part in rows._asdict().items() if name not in BITS]
    assert np.hstack(words).tolist() == list(range(2, NUM_COLUMNS + 1))


OTHER: dict[str, Any] = {"mirostat_target": 3.0, "seed": 5, "logit_bias": ((1, 1.0),), "top_k": 3}


@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_reaches_the_device(name: str) -> None:
    """And only what truncates or penalises is flagged as such."""
    value = OTHER.get(name, 0.5)
    assert value != NEUTRAL[name]
    params, neutral = SamplingParams(**{name: value}), SamplingParams()
    changed = (pack_params(params, 0, False) != pack_params(neutral, 0, False)).any()
    assert changed
    rows = unpack_rows(pack_params(params, 0, False)[None])
    assert bool(rows.truncates[0]) == (KNOBS[name].group == "truncation" or name == "mirostat_target")
    assert bool(rows.penalized[0]) == (KNOBS[name].group == "penalty")
    assert bool(rows.biased[0]) == (name == "logit_bias")


def test_packing_64_rows_is_cheap() -> None:
    constants = [pack_params(SamplingParams(top_p=0.9, seed=i), 0, False) for i in range(64)]
    packed = np.zeros((64, NUM_COLUMNS), np.int32)

    def pack_all() -> float:
        start = time.perf_counter()
        for slot, constant in enumerate(constants):
            pack_row(packed[slot], constant, slot, 17, token=slot)
        return time.perf_counter() - start

    best = min(pack_all() for _ in range(200))
    print(f"64 rows packed in {best * 1e6:.0f} us")
    assert best < 200e-6
