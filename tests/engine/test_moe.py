"""Mixtures of experts through the engine, one with sparse latent attention: routing comes back for each token, and
batching changes nothing."""

from __future__ import annotations

import dataclasses
import queue
from pathlib import Path

import numpy as np
import pytest

from jaxserve.engine.requests import Request
from jaxserve.models import load_model, make_mesh
from jaxserve.options import EngineOptions
from jaxserve.resolve import bundled_model_dir
from jaxserve.sampling.params import SamplingParams
from jaxserve.startup import start_loaded
from jaxserve.text.tokenizers.tokenizer import load_tokenizer

MODELS = Path(__file__).resolve().parents[1] / "fixtures" / "models"


@pytest.fixture(scope="module", params=["qwen3_moe", "deepseek_v32"])
def started(request):
    folder = MODELS / request.param
    model = load_model(folder, mesh=make_mesh((1, 1, 1)), dtype="float32", layer_loop="unroll")
    context = min(64, model.config.max_position_embeddings)
    options = EngineOptions(folder, "float32", 4, context, 8 << 20, token_buckets=(4, 32))
    made = start_loaded(model, load_tokenizer(bundled_model_dir()), options)
    yield made
    made.engine.close()


def run(started, prompts):
    box = queue.SimpleQueue()
    requests = [
        Request(str(i), tuple(prompt), SamplingParams(temperature=0), max_tokens=8, want_routing=True)
        for i, prompt in enumerate(prompts)
    ]
    for request in requests:
        started.engine.submit(request, box.put)
    tokens, routing, left = {r.id: [] for r in requests}, {r.id: [] for r in requests}, len(requests)
    while left:
        delta = box.get(timeout=60)
        assert delta.error is None
        tokens[delta.request_id] += delta.token_ids
        routing[delta.request_id] += delta.routing
        left -= delta.finish_reason is not None
    return [(tokens[r.id], routing[r.id]) for r in requests]


def test_experts_of_a_prompt(started):
    """They are those of the same tokens as output: row t is what the position before t was routed to."""
    layers, chosen = started.model_config.routed_experts
    prompt = list(range(10, 40))
    ((tokens, routing),) = run(started, [prompt])
    box = queue.SimpleQueue()
    for name, first in (("all", 0), ("some", 20)):
        whole = (*prompt, *tokens[:6])
        scored = Request(name, whole, SamplingParams(temperature=0), 2, logprobs=0, prompt_logprobs_from=first)
        started.engine.submit(dataclasses.replace(scored, want_routing=True), box.put)
        deltas = [box.get(timeout=60)]
        while deltas[-1].finish_reason is None:
            deltas.append(box.get(timeout=60))
        shown = deltas[0].prompt_routing
        assert len(shown) == len(deltas[0].prompt_logprobs) == len(whole) - first
        assert [one is None for one in shown] == [position == 0 for position in range(first, len(whole))]
        assert {len(one) for one in shown if one} == {layers * chosen}
        assert list(shown[-6:]) == routing[:6]
        assert [one for delta in deltas for one in delta.routing] == routing[6:]
        assert not any(delta.prompt_routing for delta in deltas[1:])
    assert len(set(shown)) > 1


def test_experts_of_each_token_and_no_influence_of_neighbours(started):
    layers, chosen = started.model_config.routed_experts
    prompts = [[5, 6, 7], list(range(10, 40)), [9], list(range(3, 23)), [8, 8]]
    together = run(started, prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        assert run(started, [prompt]) == [answer]
    for tokens, routing in together:
        assert len(tokens) == len(routing) == 8
        for one in routing:
            experts = np.frombuffer(one, np.uint8).reshape(layers, chosen)
            assert all(len(set(layer)) == chosen for layer in experts.tolist())
