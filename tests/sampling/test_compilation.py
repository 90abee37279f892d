"""One program for every mixture of knobs."""

from __future__ import annotations

import jax
import numpy as np
from jax import monitoring
from sampling_cases import random_logits, random_row
from sampling_oracle import Row
from sampling_stage import empty_state, load, pack, run, step

V = 1000


def test_rows_with_different_knobs_run_through_the_greedy_batches_program() -> None:
    rng = np.random.default_rng(13)
    logits = np.stack([random_logits(rng, V) for _ in range(64)])
    run(logits, [Row(temperature=0) for _ in range(64)])
    rows = [random_row(rng, V) for _ in range(64)]
    state = load(empty_state(64, V), 0, Row(prompt=[1], frequency_penalty=1.0, logit_bias=((1, 1.0),)))
    packed, mask = pack(list(rows), list(range(64)), 64, V)
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        _, out = step(state, logits, packed, mask)
        np.asarray(out)
        assert not compiled
        jax.jit(lambda x: x * 3 + 1)(np.zeros(7))
        assert compiled, "the counter counts"
    finally:
        monitoring.unregister_event_duration_listener(listen)
