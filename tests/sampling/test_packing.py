"""Packing on the host: round trip and cost."""

from __future__ import annotations

import time

import numpy as np

from jaxserve.sampling.params import SamplingParams
from jaxserve.sampling.packing import NUM_COLUMNS, pack_params, pack_row, unpack_rows


def test_knobs_survive_the_journey() -> None:
    params = SamplingParams(
        temperature=0.5, top_k=7, top_p=0.9, min_p=0.25, typical_p=0.5, frequency_penalty=-1.5, presence_penalty=0.5,
        repetition_penalty=0.0, seed=-2,
    )  # fmt: skip
    packed = np.zeros((2, NUM_COLUMNS), np.int32)
    pack_row(packed[0], pack_params(params, 3, True), 9, 41, fresh=True, grammar=True, forced=0, mu=1.5)
    rows = unpack_rows(packed)
    assert (int(rows.slot[0]), int(rows.position[0]), int(rows.choice[0]), int(rows.forced[0])) == (9, 41, 3, 0)
    assert [int(word) for word in rows.seed[0]] == [0xFFFFFFFF, 0xFFFFFFFE]
    assert float(rows.inverse_temperature[0]) == 2.0
    assert int(rows.top_k[0]) == 7
    assert int(rows.top_p[0]) == round(0.9 * 2**32)
    assert int(rows.typical_p[0]) == 2**31
    np.testing.assert_allclose(rows.log_min_p[0], np.log(0.25), rtol=1e-6)
    assert (float(rows.frequency[0]), float(rows.presence[0])) == (-1.5, 0.5)
    np.testing.assert_allclose(rows.repetition[0], 0.01, rtol=1e-6)
    assert float(rows.mu[0]) == 1.5
    on = ("active", "fresh", "penalized", "constrained", "wants_logprobs", "uses_top_p", "uses_typical_p")
    assert all(bool(getattr(rows, name)[0]) for name in on)
    assert not any(bool(getattr(rows, name)[0]) for name in ("greedy", "mirostat", "biased"))
    assert not bool(rows.active[1])
    assert int(rows.forced[1]) == -1


def test_mirostat_replaces_the_truncations() -> None:
    params = SamplingParams(mirostat_target=8.0, mirostat_lr=0.25, top_k=5, top_p=0.5, min_p=0.5, typical_p=0.5)
    rows = unpack_rows(pack_params(params, 0, False)[None])
    assert bool(rows.mirostat[0])
    assert (float(rows.tau[0]), float(rows.mu[0]), float(rows.learning_rate[0])) == (3.0, 6.0, 0.25)
    assert int(rows.top_k[0]) == 0
    assert float(rows.log_min_p[0]) == -np.inf
    assert not bool(rows.uses_top_p[0]) | bool(rows.uses_typical_p[0])


def test_packing_64_rows_is_cheap() -> None:
    constants = [pack_params(SamplingParams(top_p=0.9, seed=i), 0, False) for i in range(64)]
    packed = np.zeros((64, NUM_COLUMNS), np.int32)

    def pack_all() -> float:
        start = time.perf_counter()
        for slot, constant in enumerate(constants):
            pack_row(packed[slot], constant, slot, 17)
        return time.perf_counter() - start

    best = min(pack_all() for _ in range(200))
    print(f"64 rows packed in {best * 1e6:.0f} us")
    assert best < 200e-6
