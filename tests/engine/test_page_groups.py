"""Models with sliding windows through the whole engine: pages are reused, and not one token changes."""

from __future__ import annotations

import dataclasses
import queue
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxserve.engine.engine import Engine
from jaxserve.engine.requests import Request
from jaxserve.engine.scheduler import Scheduler
from jaxserve.models import load_model, make_mesh
from jaxserve.options import EngineOptions
from jaxserve.resolve import bundled_model_dir
from jaxserve.sampling.params import SamplingParams
from jaxserve.startup import start_loaded
from jaxserve.text.tokenizers.tokenizer import load_tokenizer

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "models"
MODELS = [
    "gpt_oss",  # a group without a window and one with
    "mistral_window",  # a group with a window only
    pytest.param("gemma3", marks=pytest.mark.slow),  # one without, two with
]
PAGE, CONTEXT, BUDGET = 4, 256, 32


class Watched(Scheduler):
    """Remembers the most pages that a sequence has held in each page group."""

    def __init__(self, config):
        super().__init__(config)
        self.most = Counter()

    def plan(self, *wishes):
        plan = super().plan(*wishes)
        for sequence in self._running:
            for group, run in enumerate(sequence.pages.runs):
                self.most[group] = max(self.most[group], len(run.pages))
        return plan


@pytest.fixture(scope="module", params=MODELS)
def started(request):
    """A compiled model, with more pages than the requests below need; its own engine is closed."""
    folder = FIXTURES / request.param
    model = load_model(folder, mesh=make_mesh((1, 1, 1)), dtype="float32", layer_loop="unroll")
    options = EngineOptions(folder, "float32", 4, CONTEXT, 4 << 20, page_size=PAGE, token_buckets=(BUDGET,))
    made = start_loaded(model, load_tokenizer(bundled_model_dir()), options)
    made.engine.close()
    return made


@pytest.fixture
def serve(started):
    """Runs the rounds of requests on the one device, with a choice of pages -> (tokens, cached) of each, scheduler."""

    def run(num_pages, *, caching):
        config = dataclasses.replace(started.config, num_pages=num_pages, prefix_caching=caching)
        scheduler = Watched(config)
        engine = Engine(scheduler, started.runner, started.tokenizer, total_pages=num_pages - 1, vocab_size=100)
        results = [answers(engine, requests) for requests in rounds()]
        engine.close(timeout=60)
        scheduler.check()
        assert engine.failure is None
        assert scheduler.free_pages == num_pages - 1
        return results, scheduler

    return run


def answers(engine, requests):
    """Tokens of each choice, and the cached tokens of each request."""
    box = queue.SimpleQueue()
    for one in requests:
        engine.submit(one, box.put)
    tokens, cached, unfinished = {}, {}, sum(one.n for one in requests)
    while unfinished:
        delta = box.get(timeout=60)
        assert delta.error is None
        tokens.setdefault((delta.request_id, delta.choice), []).extend(delta.token_ids)
        cached[delta.request_id] = delta.cached_tokens
        unfinished -= delta.finish_reason is not None
    return tokens, cached


def ask(name, prompt, max_tokens, n=1):
    sampling = SamplingParams(temperature=1.0, seed=len(prompt))
    return Request(name, tuple(int(token) for token in prompt), sampling, max_tokens=max_tokens, n=n)


def rounds():
    rng = np.random.default_rng(3)
    base = rng.integers(1, 90, 170)
    branch = [*base[:90], *rng.integers(1, 90, 40)]
    return [
        [ask("long", base, 80), ask("pair", base[:61], 40, n=2), ask("short", base[7:12], 60)],
        [ask("again", base, 60), ask("branch", branch, 50), ask("pair", base[:61], 9, n=3)],
        [ask(f"crowd{length}", base[:length], 100) for length in range(1, 5)],
    ]


def test_scarce_and_cached_pages_change_no_token(started, serve):
    """Generation past many windows, preemptions, prefix hits and shared prompts, against pages for all and no cache."""
    windows = started.config.page_windows
    expected, plenty = serve(started.config.num_pages, caching=False)
    cached, roomy = serve(started.config.num_pages, caching=True)
    scarce, tight = serve(1 + sum(started.config.table_columns), caching=True)
    for alone, *others in zip(expected, cached, scarce, strict=True):
        for tokens, _ in others:
            assert tokens == alone[0]
    assert cached[1][1]["again"] == 168, "all full blocks before the prompt's last token"
    assert cached[1][1]["branch"] == 88
    assert plenty.preemptions == roomy.preemptions == 0
    assert tight.preemptions > 0 or None not in windows, "only full groups grow past what the pool has"
    for scheduler in (plenty, roomy, tight):
        for group, window in enumerate(windows):
            if window is None:
                assert scheduler.most[group] == -(-(170 + 80) // PAGE)
            else:  # one chunk in flight, the next one planned
                assert scheduler.most[group] <= -(-(window - 1 + 2 * BUDGET) // PAGE) + 1
