"""Constraints on the real device: a token drawn twice is the token that a held step would have drawn."""

from __future__ import annotations

import queue

import numpy as np
import pytest

from jaxserve.engine.requests import Request
from jaxserve.options import EngineOptions
from jaxserve.prepared import prepare
from jaxserve.resolve import bundled_model_dir
from jaxserve.sampling.params import SamplingParams
from jaxserve.startup import start

PROMPT = tuple(range(40, 60))
KNOBS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=1.5, seed=1),
    SamplingParams(temperature=1.2, seed=2, mirostat_target=5.0, mirostat_lr=0.3),
    SamplingParams(
        temperature=1.3,
        seed=3,
        repetition_penalty=1.3,
        frequency_penalty=0.7,
        presence_penalty=0.4,
        logit_bias=((3, 4.0), (8, 2.0)),
        top_p=0.9,
    ),
]


class OddFrom:
    """Allows odd tokens only, from the token after `count` on; `eager` says from the first token on that it rules."""

    def __init__(self, count, *, eager):
        self.left = count
        self.eager = eager

    @property
    def constrains(self):
        return self.eager or self.left <= 0

    @property
    def stands(self):
        return False

    def prepare(self, row):
        row[:] = 0xAAAAAAAA - (1 << 32) if self.left <= 0 else -1

    def complete(self, row):
        raise AssertionError("no matcher was to be asked")

    def advance(self, token):
        self.left -= 1


@pytest.fixture(scope="module")
def engine():
    options = EngineOptions(
        model_dir=bundled_model_dir(), max_num_seqs=8, max_model_len=128, token_buckets=(8, 64), kv_memory=32 << 20
    )
    made = start(prepare(options))
    yield made.engine
    made.engine.close()


def restricted(number, count, eager):
    return Request(
        f"{number}-{count}",
        PROMPT,
        KNOBS[number],
        max_tokens=24,
        logprobs=2,
        constraint=lambda: OddFrom(count, eager=eager),
    )


def run(engine, *, eager):
    """Outputs of every knob with restrictions that begin after 1, 4 and 5 tokens, and of one request without any."""
    requests = [Request("plain", PROMPT, SamplingParams(seed=9), max_tokens=24, stop_token_ids=())]
    requests += [restricted(number, count, eager) for number in range(len(KNOBS)) for count in (1, 4, 5)]
    box = queue.SimpleQueue()
    for request in requests:
        engine.submit(request, box.put)
    outputs = {request.id: [] for request in requests}
    open_requests = len(requests)
    while open_requests:
        delta = box.get(timeout=120)
        assert delta.error is None, delta.error
        outputs[delta.request_id] += zip(delta.token_ids, delta.logprobs or [None] * len(delta.token_ids), strict=True)
        open_requests -= delta.finish_reason is not None
    return outputs


def test_what_is_drawn_again_is_what_a_held_step_draws(engine):
    late, held = run(engine, eager=False), run(engine, eager=True)
    assert late == held
    for name, output in late.items():
        if name != "plain":
            tokens = np.array([token for token, _ in output[int(name.split("-")[1]) :]])
            assert len(tokens) >= 19
            assert (tokens % 2 == 1).all()
